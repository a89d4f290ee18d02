//! What a build says while it works; the caller decides how it looks.

/// Receives what a build does. Called from several threads.
pub trait Progress: Sync {
    /// A step began, as `image mariadb`.
    fn step(&self, step: &str);
    /// A detail of the current step, as a package's name.
    fn detail(&self, step: &str, detail: &str);
    /// Whether the caller wants the build to stop.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _step: &str) {}
    fn detail(&self, _step: &str, _detail: &str) {}
}
