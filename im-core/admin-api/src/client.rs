//! A client of the administration socket over any stream: one exchange per stream, within a deadline.

use crate::http::{DecodeError, Request, decode_response, response_is_complete};
use crate::paths;
use crate::types::{
    CanaryCreated, CanarySwept, CreateUser, Drain, Empty, ListUsers, Readiness, Schema, SetPassword, Stats,
    SweepCanaries, User, UserAddress, UserList,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket cannot be opened.
    #[error("cannot open the administration socket {}; is the IM core running, and may this user open it?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the administration socket broke")]
    Io(#[source] io::Error),
    /// The request cannot be put into JSON.
    #[error("the request cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// The answer is not understood, or is a refusal.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No answer in time.
    #[error("the IM core did not answer {path} within {seconds} s")]
    Timeout {
        /// What was asked.
        path: String,
        /// The deadline.
        seconds: u64,
    },
}

/// Asks the IM core behind a Unix socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

impl Client {
    /// A client of this socket; each operation has ten seconds.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned(), deadline: Duration::from_secs(10) }
    }

    /// Another deadline for each operation.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends a request over any stream and reads the answer, without a deadline.
    pub async fn exchange<T: DeserializeOwned>(
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        request: &Request,
    ) -> Result<T, ClientError> {
        stream.write_all(request.as_bytes()).await.map_err(ClientError::Io)?;
        stream.flush().await.map_err(ClientError::Io)?;
        let mut answer = Vec::with_capacity(1024);
        while !response_is_complete(&answer) {
            if stream.read_buf(&mut answer).await.map_err(ClientError::Io)? == 0 {
                break;
            }
        }
        Ok(decode_response(&answer)?)
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, request: &Request) -> Result<T, ClientError> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Connect { path: self.socket.clone(), source })?;
            Self::exchange(stream, request).await
        };
        timeout(self.deadline, exchange)
            .await
            .map_err(|_| ClientError::Timeout { path: path.to_owned(), seconds: self.deadline.as_secs() })?
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(path, &Request::get(path)).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        self.ask(path, &Request::post(path, body).map_err(ClientError::Encode)?).await
    }

    /// Whether clients can be served.
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        self.get(paths::READINESS).await
    }

    /// Counts.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get(paths::STATS).await
    }

    /// Makes an account.
    pub async fn create_user(&self, user: &CreateUser) -> Result<User, ClientError> {
        self.post(paths::USER_CREATE, user).await
    }

    /// A page of accounts.
    pub async fn list_users(&self, page: &ListUsers) -> Result<UserList, ClientError> {
        self.post(paths::USER_LIST, page).await
    }

    /// Replaces a password.
    pub async fn set_password(&self, change: &SetPassword) -> Result<(), ClientError> {
        self.post::<Empty>(paths::USER_PASSWORD, change).await.map(|_| ())
    }

    /// Forbids signing in.
    pub async fn disable_user(&self, address: &str) -> Result<User, ClientError> {
        self.post(paths::USER_DISABLE, &UserAddress { address: address.to_owned() }).await
    }

    /// Allows signing in again.
    pub async fn enable_user(&self, address: &str) -> Result<User, ClientError> {
        self.post(paths::USER_ENABLE, &UserAddress { address: address.to_owned() }).await
    }

    /// Removes an account with all it owns.
    pub async fn remove_user(&self, address: &str) -> Result<(), ClientError> {
        let address = UserAddress { address: address.to_owned() };
        self.post::<Empty>(paths::USER_REMOVE, &address).await.map(|_| ())
    }

    /// Makes two hidden accounts.
    pub async fn create_canaries(&self) -> Result<CanaryCreated, ClientError> {
        self.post(paths::CANARY_CREATE, &Empty {}).await
    }

    /// Removes hidden accounts.
    pub async fn sweep_canaries(&self, sweep: &SweepCanaries) -> Result<CanarySwept, ClientError> {
        self.post(paths::CANARY_SWEEP, sweep).await
    }

    /// Ends all sessions and takes no new ones.
    pub async fn drain(&self, drain: Drain) -> Result<(), ClientError> {
        self.post::<Empty>(paths::DRAIN, &drain).await.map(|_| ())
    }

    /// How far the schema is.
    pub async fn schema(&self) -> Result<Schema, ClientError> {
        self.get(paths::SCHEMA).await
    }

    /// Begins what waits for the end of an upgrade.
    pub async fn finalize_schema(&self) -> Result<Schema, ClientError> {
        self.post(paths::SCHEMA_FINALIZE, &Empty {}).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn an_answer_in_pieces_is_put_together() {
        let (near, mut far) = duplex(64);
        let server = tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let mut read = 0;
            while !request[..read].ends_with(b"\r\n\r\n") {
                read += far.read(&mut request[read..]).await.unwrap();
            }
            for piece in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".chunks(7) {
                far.write_all(piece).await.unwrap();
            }
            // The answer is complete: the client must not wait for the end of the connection.
            far
        });
        Client::exchange::<Empty>(near, &Request::get(paths::STATS)).await.unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = Client::new("/nonexistent/admin.sock").readiness().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/admin.sock"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_meets_the_deadline() {
        let folder = std::env::temp_dir().join(format!("maxim-admin-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(&path).with_deadline(Duration::from_millis(50));
        let error = client.readiness().await.unwrap_err();
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    }
}
