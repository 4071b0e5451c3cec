//! Every metric of `serve`, declared once: `/metrics` shows them, and `docs/metrics.md` is generated from here.
//!
//! ```text
//! Service, routes ── counters and histograms, as things happen ─┐
//! GET /metrics ───── gauges, as things are at that moment ──────┴─► OpenMetrics text
//! ```
//!
//! What a label can say is bounded: languages, templates, and the names of codes and ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::pool::policy::Status;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Before every name.
const PREFIX: &str = "runner_codes";
/// Of histograms, in seconds: from what a warm machine takes to what a long job takes.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

type Labels<const N: usize> = [(&'static str, String); N];

fn labels<const N: usize>(names: [&'static str; N], values: [&str; N]) -> Labels<N> {
    std::array::from_fn(|place| (names[place], values[place].to_owned()))
}

/// How often something happened.
pub(crate) struct Count<const N: usize> {
    family: Family<Labels<N>, Counter>,
    names: [&'static str; N],
}

impl<const N: usize> Count<N> {
    fn new(names: [&'static str; N]) -> Self {
        let family = Family::default();
        Self { family, names }
    }

    /// Once more.
    pub(crate) fn add(&self, values: [&str; N]) {
        self.family.get_or_create(&labels(self.names, values)).inc();
    }

    /// As somebody else has counted it.
    pub(crate) fn set(&self, values: [&str; N], number: u64) {
        let counter = self.family.get_or_create(&labels(self.names, values));
        counter.inner().store(number, Ordering::Relaxed);
    }
}

/// How much there is of something.
pub(crate) struct Level<const N: usize> {
    family: Family<Labels<N>, Gauge<f64, AtomicU64>>,
    names: [&'static str; N],
}

impl<const N: usize> Level<N> {
    fn new(names: [&'static str; N]) -> Self {
        let family = Family::default();
        Self { family, names }
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(crate) fn set(&self, values: [&str; N], number: u64) {
        let gauge = self.family.get_or_create(&labels(self.names, values));
        gauge.set(number as f64);
    }
}

/// How long something took.
pub(crate) struct Times<const N: usize> {
    family: Family<Labels<N>, Histogram>,
    names: [&'static str; N],
}

impl<const N: usize> Times<N> {
    fn new(names: [&'static str; N]) -> Self {
        let family = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        Self { family, names }
    }

    pub(crate) fn observe(&self, values: [&str; N], took: Duration) {
        let histogram = self.family.get_or_create(&labels(self.names, values));
        histogram.observe(took.as_secs_f64());
    }

    /// The same, of milliseconds.
    pub(crate) fn observe_ms(&self, values: [&str; N], milliseconds: f64) {
        let took = Duration::try_from_secs_f64(milliseconds / 1e3);
        self.observe(values, took.unwrap_or_default());
    }
}

/// How many labels there are.
const fn names(names: &[&str]) -> usize {
    names.len()
}

macro_rules! metrics {
    ($($field:ident: $kind:ident [$($label:ident)*] $name:literal $(in $unit:ident)?, $help:literal;)*) => {
        /// All metrics, and the registry that writes them.
        pub(crate) struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub(crate) $field: $kind<{ names(&[$(stringify!($label)),*]) }>,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix(PREFIX);
                $(
                    let $field = $kind::new([$(stringify!($label)),*]);
                    metrics!(@register registry $field $name $help $($unit)?);
                )*
                Self { registry, $($field),* }
            }
        }

        /// A name, kind, unit, labels, and what it means.
        #[cfg(test)]
        const ALL: &[(&str, &str, &[&str], &[&str], &str)] = &[
            $(($name, stringify!($kind), &[$(stringify!($unit))?], &[$(stringify!($label)),*], $help),)*
        ];
    };
    // The registry ends each text with a full stop itself.
    (@register $registry:ident $field:ident $name:literal $help:literal) => {
        $registry.register($name, $help.trim_end_matches('.'), $field.family.clone());
    };
    (@register $registry:ident $field:ident $name:literal $help:literal $unit:ident) => {
        $registry.register_with_unit($name, $help.trim_end_matches('.'), Unit::$unit, $field.family.clone());
    };
}

metrics! {
    build: Level[version] "build_info", "1, with the version of host-agent.";
    jobs: Count[language termination] "jobs", "Jobs that ran, by what ended them.";
    refusals: Count[code] "refusals", "Requests that were answered with an error, by its code.";
    vmm_failures: Count[code] "vmm_failures", "Jobs that failed because of their machine: it could not be made, died or did not answer.";
    unconfirmed: Count[template] "clones_unconfirmed", "Clones that were destroyed because they did not confirm that they are their own.";
    queue_wait: Times[] "queue_wait" in Seconds, "How long jobs waited for their turn.";
    boot_time: Times[template] "boot_time" in Seconds, "How long machines took to boot for a job, from the start of the VMM to the guest's hello.";
    restore_time: Times[template] "restore_time" in Seconds, "How long clones took to be made, from the start of the VMM or the load of the snapshot to the guest's confirmation; those for the pool included.";
    exec_time: Times[language] "exec_time" in Seconds, "How long code ran, as the guest says.";
    total_time: Times[language] "job_time" in Seconds, "From the request accepted to its answer ready.";
    jobs_running: Level[] "jobs_running", "Jobs that have a machine, or get one.";
    jobs_waiting: Level[] "jobs_waiting", "Jobs that wait for their turn.";
    pool_budget: Level[] "pool_budget" in Bytes, "Memory that machines kept ready may take.";
    pool_used: Level[] "pool_used" in Bytes, "Of it what they take.";
    pool_leases: Count[template source] "pool_leases", "Machines that jobs got from the pool: `ready` (a hit), `prespawned` (a VMM waited), `on_demand` (a miss).";
    pool_failures: Count[template] "pool_failures", "Restores, starts and hand-overs of the pool that failed.";
    pool_deaths: Count[template] "pool_deaths", "Machines that ended by themselves before anybody used them.";
    pool_machines: Level[template state] "pool_machines", "Machines of the pool, by state: `idle`, `prespawned`, `restoring`, `spawning`, `leased`, `ending`.";
    pool_target: Level[template] "pool_target", "Restored machines that are wanted now.";
    resident: Level[] "process_resident_memory" in Bytes, "Memory of the service itself, without its VMMs.";
    descriptors: Level[kind] "process_open_descriptors", "Descriptors that the service has open, by kind: `socket` or `other`. More and more of them without more connections or machines is a leak.";
    directories: Level[] "machine_directories", "Directories of machines. More than machines that live, for long, is a leak.";
    vmms: Level[] "vmm_processes", "Processes that the service has started and that are not gone: VMMs, and what ends.";
    cgroups: Level[] "cgroups", "Control groups below that of the service. More than machines that live, for long, is a leak.";
}

impl Metrics {
    /// Takes over what the pool says of itself.
    pub(crate) fn show_pool(&self, pool: &Status<String>) {
        self.pool_budget.set([], pool.budget_bytes);
        self.pool_used.set([], pool.used_bytes);
        for key in &pool.keys {
            let (template, counts) = (key.key.as_str(), key.counts);
            for (source, number) in [
                ("ready", counts.ready),
                ("prespawned", counts.prespawned),
                ("on_demand", counts.on_demand),
            ] {
                self.pool_leases.set([template, source], number);
            }
            self.pool_failures.set([template], counts.failed);
            self.pool_deaths.set([template], counts.died);
            for (state, number) in [
                ("idle", key.idle),
                ("prespawned", key.prespawned),
                ("restoring", key.restoring),
                ("spawning", key.spawning),
                ("leased", key.leased),
                ("ending", key.ending),
            ] {
                self.pool_machines.set([template, state], number as u64);
            }
            self.pool_target.set([template], key.target as u64);
        }
    }

    /// All of it as OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_documentation_is_generated_from_here() {
        let mut page = String::from(
            "# Metrics\n\n\
             <!-- Generated from crates/host-agent/src/metrics.rs: UPDATE_DOCS=1 cargo test -p host-agent -->\n\n\
             `GET /metrics` of `host-agent serve`, in OpenMetrics text (Prometheus reads it). Over TCP it needs a key with the \
             scope `observe`.\n\n\
             | metric | type | labels | meaning |\n|---|---|---|---|\n",
        );
        for (name, kind, unit, labels, help) in ALL {
            let unit = unit.first().map(|unit| format!("_{}", unit.to_lowercase()));
            let (kind, ending) = match *kind {
                "Count" => ("counter", "_total"),
                "Level" => ("gauge", ""),
                _ => ("histogram", ""),
            };
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(
                page,
                "| `{PREFIX}_{name}{}{ending}` | {kind} | {} | {help} |",
                unit.unwrap_or_default(),
                labels.join(", ")
            )
            .unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == page,
            "{path} is out of date: UPDATE_DOCS=1 cargo test --package host-agent"
        );
    }

    #[test]
    fn they_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.jobs.add(["bash", "exit"]);
        metrics.pool_leases.set(["base", "ready"], 7);
        metrics.resident.set([], 4096);
        metrics.exec_time.observe_ms(["bash"], 30.0);
        let text = metrics.text();
        for line in [
            "runner_codes_jobs_total{language=\"bash\",termination=\"exit\"} 1\n",
            "runner_codes_pool_leases_total{template=\"base\",source=\"ready\"} 7\n",
            "runner_codes_process_resident_memory_bytes{} 4096.0\n",
            "runner_codes_exec_time_seconds_bucket{le=\"0.05\",language=\"bash\"} 1\n",
            "# EOF\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
