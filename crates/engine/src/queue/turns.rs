//! Waiting for a turn.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::policy::{Config, Entered, Queue, Refused, Share, Ticket};

/// The turns of all jobs. Clones are of the same.
pub struct Turns<T>(Arc<Inner<T>>);

struct Inner<T> {
    began: Instant,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: Queue<T>,
    waiters: HashMap<Ticket, oneshot::Sender<()>>,
    closed: bool,
}

/// The right to run a job, until it is dropped.
pub struct Turn<T: Ord + Clone> {
    turns: Turns<T>,
    ticket: Ticket,
    waited: Duration,
}

impl<T: Ord + Clone> Turns<T> {
    /// A queue in which nobody waits.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State {
            queue: Queue::new(config),
            waiters: HashMap::new(),
            closed: false,
        };
        Self(Arc::new(Inner {
            began: Instant::now(),
            state: Mutex::new(state),
        }))
    }

    /// Waits for the turn of a job of `tenant`, for at most `patience`. Dropped meanwhile, the job does not wait any more.
    ///
    /// # Errors
    /// There was no room for it, or not any more, or its turn did not come in time.
    pub async fn take(&self, tenant: &T, share: Share, patience: Duration) -> Result<Turn<T>, Refused> {
        let asked = Instant::now();
        let (tell, told) = oneshot::channel();
        let ticket = {
            let now = self.now();
            let mut state = self.state();
            if state.closed {
                return Err(Refused::Closed);
            }
            let Entered { ticket, displaced } = state.queue.enter(now, tenant, share, patience)?;
            state.waiters.insert(ticket, tell);
            // Who waits for it learns it by this.
            if let Some(displaced) = displaced {
                state.waiters.remove(&displaced);
            }
            ticket
        };
        let mut turn = Turn {
            turns: self.clone(),
            ticket,
            waited: Duration::ZERO,
        };
        self.advance();
        let told = timeout(patience, told).await;
        let waited = asked.elapsed();
        if let Ok(Ok(())) = told {
            turn.waited = waited;
            return Ok(turn);
        }
        let state = self.state();
        let wait = state.queue.predicted_wait(tenant, share);
        Err(match told {
            _ if state.closed => Refused::Closed,
            Ok(_) => Refused::Displaced { waited, wait },
            Err(_) => Refused::TimedOut { waited, wait },
        })
    }

    /// Refuses all that wait, and whoever comes.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        // Each waits for its own, and leaves when that is gone.
        state.waiters.clear();
    }

    /// How many jobs wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().queue.waiting()
    }

    /// How many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state().queue.running()
    }

    /// Tells all whose turn it is.
    fn advance(&self) {
        let now = self.now();
        let mut state = self.state();
        if state.closed {
            return;
        }
        while let Some(ticket) = state.queue.next(now) {
            let told = state.waiters.remove(&ticket).map(|waiter| waiter.send(()));
            // It has just gone away, and need not have been counted.
            if !matches!(told, Some(Ok(()))) {
                state.queue.leave(ticket, now);
            }
        }
    }

    fn leave(&self, ticket: Ticket) {
        let now = self.now();
        let mut state = self.state();
        state.waiters.remove(&ticket);
        state.queue.leave(ticket, now);
        drop(state);
        self.advance();
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Turns<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Turns<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl<T: Ord + Clone> Turn<T> {
    /// How long it was waited for.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T: Ord + Clone> Drop for Turn<T> {
    fn drop(&mut self) {
        self.turns.leave(self.ticket);
    }
}

impl<T: Ord + Clone> fmt::Debug for Turn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Turn").field(&self.ticket).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHARE: Share = Share {
        weight: NonZeroU32::MIN,
        concurrent: 9,
        capacity: 9,
    };

    fn turns(capacity: usize) -> Turns<&'static str> {
        Turns::new(Config {
            concurrent: NonZeroUsize::MIN,
            capacity,
            service_time: Duration::from_millis(1),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other() {
        let turns = turns(9);
        let first = turns.take(&"a", SHARE, LONG).await.unwrap();
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(&"a", SHARE, LONG).await }
        });
        tokio::task::yield_now().await;
        assert_eq!((turns.running(), turns.waiting()), (1, 1));
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert_eq!((turns.running(), turns.waiting()), (1, 0));
        drop(second);
        assert_eq!((turns.running(), turns.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_or_loses_patience_waits_no_more() {
        let turns = turns(9);
        let first = turns.take(&"a", SHARE, LONG).await.unwrap();
        let refused = turns.take(&"b", SHARE, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(refused, Refused::TimedOut { .. }), "{refused}");
        let gone = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(&"c", SHARE, LONG).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(turns.waiting(), 1);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        assert_eq!((turns.running(), turns.waiting()), (1, 0));
        drop(first);
        assert_eq!(turns.running(), 0);
        assert!(turns.state().waiters.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_was_closed() {
        let turns = turns(9);
        let running = turns.take(&"a", SHARE, LONG).await.unwrap();
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(&"a", SHARE, LONG).await }
        });
        tokio::task::yield_now().await;
        turns.close();
        assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::Closed);
        assert_eq!(turns.take(&"b", SHARE, LONG).await.unwrap_err(), Refused::Closed);
        drop(running);
        assert_eq!((turns.running(), turns.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_displaced_is_told() {
        let turns = turns(2);
        let _first = turns.take(&"flood", SHARE, LONG).await.unwrap();
        let flood = || {
            let turns = turns.clone();
            tokio::spawn(async move { turns.take(&"flood", SHARE, LONG).await })
        };
        let (_second, third) = (flood(), flood());
        tokio::task::yield_now().await;
        let full = turns.take(&"flood", SHARE, LONG).await.unwrap_err();
        assert!(matches!(full, Refused::Full { waiting: 2, .. }), "{full}");
        let other = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(&"other", SHARE, LONG).await }
        });
        let displaced = third.await.unwrap().unwrap_err();
        assert!(matches!(displaced, Refused::Displaced { .. }), "{displaced}");
        assert_eq!(turns.waiting(), 2);
        other.abort();
    }
}
