//! What the stores in database servers have in common.
//!
//! MariaDB and PostgreSQL have SQL of their own (`mariadb::sql`, `postgresql::sql`, constants of the same names)
//! and the same way around it. That way is written once, as macros that make the implementation of a domain
//! trait for one back end: sqlx's types differ per database, so that functions could not be shared without bounds
//! longer than their bodies. The [`pipeline`] that writes the archive is shared as ordinary code.
//!
//! A statement that met a deadlock, or a lost connection, is tried again for ten seconds with growing, jittered
//! pauses, as long as running it twice cannot do harm.

mod accounts;
mod archive;
mod housekeeping;
pub(crate) mod pipeline;
mod profiles;
mod rosters;

pub(crate) use accounts::impl_accounts;
pub(crate) use archive::impl_archive;
pub(crate) use housekeeping::impl_housekeeping;
pub(crate) use profiles::impl_profiles;
pub(crate) use rosters::impl_rosters;

use std::time::Duration;

/// How long one operation may take, retries included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
/// How long an operation is tried again.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(10);
/// How long a connection that goes back to its pool may take to say that it is still there.
const RELEASE: Duration = Duration::from_secs(5);

/// Lets a connection go back to its pool, or a new one in its place. The pool asks whether it answers as well, but waits for
/// ever: a server that has taken a query and vanished without a word would keep its place for good. Nor may such a
/// connection be closed: under TLS that waits for it too. It is dropped; until the server is back its place stays taken.
pub(crate) async fn still_there<C, F>(
    connection: &mut C,
    connect: impl Fn() -> F,
) -> Result<bool, sqlx::Error>
where
    C: sqlx::Connection,
    F: Future<Output = Result<C, sqlx::Error>>,
{
    if let Ok(answered) = tokio::time::timeout(RELEASE, connection.ping()).await {
        return answered.map(|()| true);
    }
    let mut pause = Duration::from_millis(100);
    loop {
        if let Ok(Ok(fresh)) = tokio::time::timeout(RELEASE, connect()).await {
            *connection = fresh;
            return Ok(true);
        }
        pause = wait(pause).await;
    }
}

/// Runs a block that yields `Result<_, sqlx::Error>`, again while `$class` of its error says so.
macro_rules! attempt {
    ($step:expr, $retry:expr, $body:expr) => {{
        let began = std::time::Instant::now();
        let mut pause = std::time::Duration::from_millis(10);
        loop {
            let outcome = tokio::time::timeout(crate::server_store::DEADLINE, async { $body }).await;
            match outcome {
                Ok(Ok(value)) => break Ok(value),
                Ok(Err(error))
                    if $retry(&error) && began.elapsed() < crate::server_store::RETRY_FOR =>
                {
                    tracing::debug!(backend = NAME, step = $step, %error, "trying again");
                    pause = crate::server_store::wait(pause).await;
                }
                Ok(Err(error)) => break Err(failed($step)(error)),
                Err(_) => {
                    let seconds = crate::server_store::DEADLINE.as_secs();
                    break Err(crate::StoreError::Timeout { backend: NAME, step: $step, seconds });
                }
            }
        }
    }};
}
pub(crate) use attempt;

/// Waits about as long as `pause`, and says how long to wait next: jitter keeps nodes that failed together from
/// trying again together.
pub(crate) async fn wait(pause: Duration) -> Duration {
    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    (pause * 2).min(Duration::from_millis(500))
}

/// What an error says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The transaction was rolled back because of another one: nothing happened.
    Conflict,
    /// The server cannot be reached or is starting or stopping: what was sent last may have happened.
    Unreachable,
    /// A row with that key is there.
    Duplicate,
    /// Anything else: trying again does not help.
    Permanent,
}

/// Sorts an error; `database` does so for the codes of one kind of server.
pub(crate) fn fault(error: &sqlx::Error, database: impl FnOnce(&str) -> Option<Fault>) -> Fault {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => Fault::Unreachable,
        sqlx::Error::Database(error) if error.is_unique_violation() => Fault::Duplicate,
        sqlx::Error::Database(error) => {
            error.code().and_then(|code| database(&code)).unwrap_or(Fault::Permanent)
        }
        _ => Fault::Permanent,
    }
}

/// Numbers as a list for `IN (…)`. They are numbers: nothing of anybody's text is in it.
pub(crate) fn id_list(ids: impl IntoIterator<Item = i64>) -> String {
    let mut list = String::new();
    for id in ids {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&id.to_string());
    }
    list
}
