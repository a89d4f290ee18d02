//! What a failed action says: which host, which step, why, and what to do next.
//!
//! The class decides the exit code of the command line (`contract`: 1 failed, 2 wrong input, 3 preflight, 5 refused,
//! 130 interrupted). The message of an error never repeats host, step or hint: whoever prints it puts them together.

use thiserror::Error;

/// Why an action did not succeed, in the sense of the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something failed on the way (exit code 1).
    Failed,
    /// A wrong flag, topology or configuration (exit code 2).
    Usage,
    /// A blocking preflight check failed, access included (exit code 3).
    Preflight,
    /// Lock held, facts changed since the plan, bundle broken or not trusted (exit code 5).
    Refused,
    /// Interrupted by a person (exit code 130).
    Interrupted,
}

impl Class {
    /// The exit code of the command line.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Preflight => 3,
            Self::Refused => 5,
            Self::Interrupted => 130,
        }
    }
}

/// The error of every action.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{cause}")]
pub struct EngineError {
    /// Class, hence exit code.
    pub class: Class,
    /// Host; empty when the cluster or the control host is concerned.
    pub host: String,
    /// Step or task id, as `connect`, `mariadb/config`.
    pub step: String,
    /// What happened and why.
    pub cause: String,
    /// What to do next; empty when nothing sensible can be said.
    pub hint: String,
    /// Errors of further hosts in the same phase.
    pub others: Box<[EngineError]>,
}

impl EngineError {
    /// An error of a class at a step.
    pub fn new(class: Class, step: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            class,
            host: String::new(),
            step: step.into(),
            cause: cause.into(),
            hint: String::new(),
            others: Box::default(),
        }
    }

    /// Something failed.
    pub fn failed(step: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::new(Class::Failed, step, cause)
    }

    /// Wrong input.
    pub fn usage(step: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::new(Class::Usage, step, cause)
    }

    /// Refused.
    pub fn refused(step: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::new(Class::Refused, step, cause)
    }

    /// Interrupted by a person.
    pub fn interrupted(step: impl Into<String>) -> Self {
        Self::new(Class::Interrupted, step, "interrupted")
            .hint("run the same command again; what is done is not done twice")
    }

    /// With the host.
    pub fn on(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// With what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// With one more thing to do, beside what is said already.
    pub fn and_hint(self, more: &str) -> Self {
        let hint = match self.hint.trim_end_matches('.') {
            "" => format!("remove the cause and run the command again; {more}"),
            first => format!("{first}; {more}"),
        };
        self.hint(hint)
    }

    /// Joins the errors of several hosts: the first is the error, the rest its `others`. The class is the most
    /// telling one: an interruption wins over everything, then a refusal, then a preflight block.
    pub fn join(errors: Vec<Self>) -> Option<Self> {
        let class = errors.iter().map(|error| error.class).max()?;
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.others = std::mem::take(&mut first.others).into_iter().chain(errors).collect();
        first.class = class;
        Some(first)
    }

    /// Exit code of the command line.
    pub const fn exit_code(&self) -> u8 {
        self.class.exit_code()
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, EngineError};

    #[test]
    fn joined_errors_keep_every_host_and_the_most_telling_class() {
        let joined = EngineError::join(vec![
            EngineError::failed("apply", "disk full").on("a"),
            EngineError::refused("lock", "held by bob").on("b"),
        ])
        .unwrap();
        assert_eq!((joined.host.as_str(), joined.class, joined.exit_code()), ("a", Class::Refused, 5));
        assert_eq!(joined.others[0].host, "b");
        assert!(EngineError::join(Vec::new()).is_none());
    }
}
