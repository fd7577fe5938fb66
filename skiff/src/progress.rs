//! What the person at the terminal sees while things start.

use std::io::{IsTerminal, Write};

/// Prints one line a step. A terminal gets colour; anything else plain text.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    has_colour: bool,
}

impl Progress {
    /// On standard output.
    pub fn to_stdout() -> Self {
        Self { has_colour: std::io::stdout().is_terminal() || std::env::var_os("SKIFF_COLOUR").is_some() }
    }

    /// Why nothing came of it.
    pub fn to_stderr(text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A step that is done.
    pub fn done(self, text: impl AsRef<str>) {
        self.line("\u{2713}", "32", text.as_ref());
    }

    /// Something that the person should know.
    pub fn note(self, text: impl AsRef<str>) {
        self.line("!", "33", text.as_ref());
    }

    /// Plain text.
    pub fn say(self, text: impl AsRef<str>) {
        self.write(text.as_ref());
    }

    fn line(self, mark: &str, colour: &str, text: &str) {
        match self.has_colour {
            true => self.write(&format!(" \x1b[{colour}m{mark}\x1b[0m {text}")),
            false => self.write(&format!(" {mark} {text}")),
        }
    }

    /// Whoever read this may have left: that is no reason to stop the cluster.
    fn write(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}
