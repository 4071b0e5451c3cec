//! Shows how far set-up has come: a bar on a terminal, a line per step elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Duration;

use image::{Progress, Unit};
use indicatif::{ProgressBar, ProgressStyle};

/// Takes [`Progress`] reports.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    bar: RefCell<Option<ProgressBar>>,
}

impl Shown {
    /// Shows one report.
    pub(crate) fn report(&self, progress: Progress<'_>) {
        match progress {
            Progress::Waiting { lock } => eprintln!("Waiting for another set-up ({})", lock.display()),
            Progress::Started { step, unit, total } => self.start(step, unit, total),
            Progress::Stage(stage) => self.with(|bar| bar.set_message(stage.to_owned())),
            Progress::Advanced(position) => self.with(|bar| bar.set_position(position)),
            Progress::Finished => self.finish(),
        }
    }

    fn start(&self, step: &str, unit: Unit, total: Option<u64>) {
        eprintln!("Making {step}");
        if std::io::stderr().is_terminal() {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            bar.set_style(style(unit, total.is_some()));
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar.replace(Some(bar));
        }
    }

    fn with(&self, change: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = &*self.bar.borrow() {
            change(bar);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(unit: Unit, bounded: bool) -> ProgressStyle {
    let template = match (unit, bounded) {
        (Unit::Bytes, true) => "  {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}",
        (Unit::Bytes, false) => "  {spinner} {bytes} {bytes_per_sec} {wide_msg}",
        (Unit::Files, true) => "  {bar:30} {pos}/{len} files {wide_msg}",
        (Unit::Files, false) => "  {spinner} {pos} files {wide_msg}",
        (Unit::Nothing, _) => "  {spinner} {elapsed} {wide_msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
