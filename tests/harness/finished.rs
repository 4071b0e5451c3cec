//! What a command did, and its JSON when it printed some.

use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub elapsed: Duration,
    /// The most memory that the process itself had, up to a moment before its end, in bytes.
    pub peak_memory: u64,
}

impl Finished {
    /// Its exit status.
    ///
    /// # Panics
    /// A signal ended it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("{}\n{}", self.status, self.stderr_text()))
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// It must have succeeded.
    ///
    /// # Panics
    /// It did not.
    pub fn succeeded(self) -> Self {
        assert!(
            self.status.success(),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout_text(),
            self.stderr_text()
        );
        self
    }

    /// The answer to a job that it printed as JSON.
    ///
    /// # Panics
    /// It printed something else, or its exit status is not the code's.
    pub fn answer(self) -> Answer {
        let json = self.json();
        assert!(
            json.get("exit_code").is_some(),
            "no answer but {json}\n{}",
            self.stderr_text()
        );
        let answer = Answer { json };
        assert_eq!(i64::from(self.code()), answer.exit_code(), "{:?}", answer.json);
        answer
    }

    /// The error that it printed as JSON.
    ///
    /// # Panics
    /// It printed something else, a part is missing, or its exit status is not 125.
    pub fn refusal(self) -> Refusal {
        let json = self.json();
        let text = |field: &str| match json[field].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("{field} is missing in {json}\n{}", self.stderr_text()),
        };
        assert_eq!(self.code(), 125, "{json}");
        Refusal {
            code: text("code"),
            cause: text("cause"),
            remedy: text("remedy"),
        }
    }

    /// The error that it printed as a line, `error[code]: cause; remedy`, the last one on standard error.
    ///
    /// # Panics
    /// It printed something else, or its exit status is not 125.
    pub fn refusal_line(self) -> Refusal {
        assert_eq!(self.code(), 125, "{}", self.stderr_text());
        let text = self.stderr_text();
        let parts = || {
            let (code, rest) = text.lines().last()?.strip_prefix("error[")?.split_once("]: ")?;
            let (cause, remedy) = rest.rsplit_once("; ")?;
            Some((code.to_owned(), cause.to_owned(), remedy.to_owned()))
        };
        let (code, cause, remedy) = parts().unwrap_or_else(|| panic!("no error but {text}"));
        Refusal { code, cause, remedy }
    }

    /// The JSON that it printed.
    ///
    /// # Panics
    /// It printed something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            let (stdout, stderr) = (self.stdout_text(), self.stderr_text());
            panic!("{error}; {}\nstdout: {stdout}\nstderr: {stderr}", self.status)
        })
    }
}

/// The answer to a job.
#[derive(Debug)]
pub struct Answer {
    /// All of it.
    pub json: Value,
}

impl Answer {
    /// What the code printed.
    pub fn stdout(&self) -> &str {
        self.text("stdout")
    }

    /// What the code complained about.
    pub fn stderr(&self) -> &str {
        self.text("stderr")
    }

    /// The code's exit status.
    ///
    /// # Panics
    /// It is no number.
    pub fn exit_code(&self) -> i64 {
        self.json["exit_code"].as_i64().expect("a number")
    }

    /// Why the code ended.
    pub fn termination(&self) -> &str {
        self.json["termination"]["kind"].as_str().unwrap_or("missing")
    }

    /// It must have ended by itself with this status.
    ///
    /// # Panics
    /// It did not.
    pub fn exited(self, code: i64) -> Self {
        assert_eq!(
            (self.termination(), self.exit_code()),
            ("exit", code),
            "{}",
            self.json
        );
        self
    }

    /// It must have been ended that way, with this status.
    ///
    /// # Panics
    /// It was not.
    pub fn ended_by(self, termination: &str, code: i64) -> Self {
        assert_eq!(
            (self.termination(), self.exit_code()),
            (termination, code),
            "{}",
            self.json
        );
        self
    }

    /// It must have printed this.
    ///
    /// # Panics
    /// It did not.
    pub fn printed(self, text: &str) -> Self {
        assert_eq!(self.stdout(), text, "{}", self.json);
        self
    }

    /// It must have complained about something with this text in it.
    ///
    /// # Panics
    /// It did not.
    pub fn complained(self, part: &str) -> Self {
        assert!(
            self.stderr().contains(part),
            "no {part:?} in stderr of {}",
            self.json
        );
        self
    }

    /// How it came by its machine: `cold`, `restore` or `pool`.
    pub fn path(&self) -> &str {
        self.json["timings"]["path"].as_str().unwrap_or("missing")
    }

    /// How it came by its interpreter: `parked` or `fresh`.
    pub fn interpreter(&self) -> &str {
        self.json["timings"]["interpreter"].as_str().unwrap_or("missing")
    }

    /// It must have come by its machine and its interpreter like that.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn took(self, path: &str, interpreter: &str) -> Self {
        assert_eq!(
            (self.path(), self.interpreter()),
            (path, interpreter),
            "{}",
            self.json
        );
        self
    }

    /// How long the code ran, by the guest's clock.
    ///
    /// # Panics
    /// The guest did not say.
    pub fn wall(&self) -> Duration {
        Duration::from_millis(self.json["usage"]["wall_ms"].as_u64().expect("a wall time"))
    }

    fn text(&self, field: &str) -> &str {
        self.json[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.json))
    }
}

/// An error of the host.
#[derive(Debug)]
pub struct Refusal {
    /// Which kind.
    pub code: String,
    /// What happened.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    /// It must be of this kind and name this in its cause.
    ///
    /// # Panics
    /// It is not, or does not.
    #[track_caller]
    pub fn is(&self, code: &str, cause_part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.cause.contains(cause_part), "no {cause_part:?} in {self:?}");
    }
}
