//! Running the programs that a build needs: no shell, no input, output kept for the error.

use crate::error::BuildError;
use std::io;
use std::process::{Command, Stdio};

/// How much of a failed program's output an error shows.
const TAIL: usize = 2000;

/// Runs a program to its end and gives its standard output.
pub fn run(command: &mut Command, step: &str) -> Result<Vec<u8>, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| not_started(&program, step, &error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.trim().is_empty() {
        text = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    Err(BuildError::Program {
        program,
        step: step.to_owned(),
        status: output.status.to_string(),
        output: tail(&text),
    })
}

/// The error for a program that could not be started.
pub fn not_started(program: &str, step: &str, error: &io::Error) -> BuildError {
    if error.kind() == io::ErrorKind::NotFound {
        return BuildError::MissingProgram { program: program.to_owned(), step: step.to_owned() };
    }
    BuildError::Program {
        program: program.to_owned(),
        step: step.to_owned(),
        status: "it did not start".to_owned(),
        output: error.to_string(),
    }
}

/// The last part of a long output, on character boundaries.
pub fn tail(text: &str) -> String {
    let text = text.trim();
    let start = text.char_indices().rev().take(TAIL).last().map_or(0, |(at, _)| at);
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_which_program_and_why() {
        assert_eq!(run(Command::new("printf").arg("x"), "a test").unwrap(), b"x");
        let missing = run(&mut Command::new("maxim-no-such-program"), "a test").unwrap_err();
        assert!(
            missing.to_string().contains("maxim-no-such-program is not installed; it is needed for a test")
        );
        let failed = run(Command::new("ls").arg("/nonexistent-maxim"), "a test").unwrap_err().to_string();
        assert!(failed.contains("while a test") && failed.contains("nonexistent-maxim"), "{failed}");
        assert_eq!(tail(&"é".repeat(5000)).chars().count(), TAIL);
    }
}
