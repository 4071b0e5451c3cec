//! One restore with its job, by phases.

use std::time::Duration;

use anyhow::{Context, ensure};
use protocol::job::Timings;
use protocol::{JobRequest, JobResponse};

use super::samples::Samples;

/// Where the time went. Milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Split {
    /// VMM started until it takes commands.
    pub(super) spawn: f64,
    /// Told to load until the guest runs.
    pub(super) load: f64,
    /// Until the guest has confirmed who it is.
    pub(super) identity: f64,
    /// How often its clock had to be set, where that is known.
    pub(super) identities: Option<u32>,
    /// The guest's account: request read to code started.
    pub(super) confine: f64,
    /// The guest's account: code started to last process gone.
    pub(super) exec: f64,
    /// From the start to the response.
    pub(super) total: f64,
}

impl Split {
    /// Adds what the guest tells of a job that has to have gone well.
    pub(super) fn with_job(self, job: &JobRequest, response: &JobResponse) -> anyhow::Result<Self> {
        ensure!(
            response.exit_code == 0 && response.error.is_none(),
            "the job {:?} went wrong: {response:?}",
            job.code
        );
        let timings = response.timings.as_ref().context("the response has no timings")?;
        Ok(Self {
            confine: timings.confine.unwrap_or_default(),
            exec: timings.exec.unwrap_or_default(),
            ..self
        })
    }

    /// Of the engine's own account.
    pub(super) fn of_engine(timings: &Timings, total: Duration, prespawned: bool) -> Self {
        Self {
            spawn: if prespawned {
                0.0
            } else {
                timings.vmm_spawn.unwrap_or_default()
            },
            load: timings.restore.unwrap_or_default(),
            identity: timings.identity.unwrap_or_default(),
            total: milliseconds(total),
            ..Self::default()
        }
    }

    /// What is in none of the phases: connecting, waking up, sending.
    fn rest(&self) -> f64 {
        self.total - self.spawn - self.load - self.identity - self.confine - self.exec
    }

    /// Adds a row to columns whose names begin with `who`.
    pub(super) fn add_to(&self, samples: &mut Samples, who: &str) {
        for (phase, value) in [
            ("", self.total),
            (": VMM spawn", self.spawn),
            (": load", self.load),
            (": identity", self.identity),
            (": confine", self.confine),
            (": run and exit", self.exec),
            (": the rest", self.rest()),
        ] {
            samples.milliseconds(&format!("{who}{phase}"), value);
        }
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up() {
        let split = Split {
            spawn: 10.0,
            load: 5.0,
            identity: 3.0,
            confine: 2.0,
            exec: 7.0,
            total: 30.0,
            ..Split::default()
        };
        assert!((split.rest() - 3.0).abs() < 1e-9);
        let mut samples = Samples::new("try", "");
        split.add_to(&mut samples, "floor");
        assert_eq!(samples.last("floor"), Some(30.0));
        assert_eq!(samples.last("floor: load"), Some(5.0));
    }
}
