//! Time, as devices see it.
//!
//! A device that holds an interrupt back, or does something after a while, asks a [`Clock`] for a
//! [`Timer`] and lists its source among its worker's. In production that is a timerfd; in a test or
//! fuzzer time stands still until [`ManualClock::advance`] moves it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::Source;

/// Tells the time and makes timers.
pub trait Clock: Send + Sync {
    /// Time since a moment that stays the same. Never goes back.
    fn now(&self) -> Duration;

    /// A timer that is not set.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    fn timer(&self) -> io::Result<Box<dyn Timer>>;
}

/// Rings once, after a while.
pub trait Timer: Send {
    /// Rings when the time has come. Stays the same.
    fn source(&self) -> Source;

    /// Rings after `delay` from now, whatever was set before; at once for a delay of nothing.
    fn set(&mut self, delay: Duration);

    /// Does not ring any more, whatever was set before.
    fn cancel(&mut self);

    /// Whether it is set and has not fired.
    fn is_set(&self) -> bool;

    /// Whether the time has come since this was last called; quiet afterwards. Costs next to nothing
    /// while the timer is not set.
    fn fired(&mut self) -> bool;
}

/// The host's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn timer(&self) -> io::Result<Box<dyn Timer>> {
        let fd = TimerFd::new().map_err(io::Error::from)?;
        Ok(Box::new(SystemTimer { fd, deadline: None }))
    }
}

struct SystemTimer {
    fd: TimerFd,
    deadline: Option<Instant>,
}

impl Timer for SystemTimer {
    fn source(&self) -> Source {
        Source::Readable(self.fd.as_raw_fd())
    }

    fn set(&mut self, delay: Duration) {
        // A timerfd that is set to nothing is off.
        let delay = delay.max(Duration::from_nanos(1));
        self.deadline = Some(Instant::now() + delay);
        // Fails only for times that a `Duration` this side of a century does not hold.
        let _ = self.fd.reset(delay, None);
    }

    fn cancel(&mut self) {
        if self.deadline.take().is_some() {
            let _ = self.fd.clear();
        }
    }

    fn is_set(&self) -> bool {
        self.deadline.is_some()
    }

    fn fired(&mut self) -> bool {
        let fired = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if fired {
            // Turns it off and makes it unreadable, whether or not it has rung by now.
            self.cancel();
        }
        fired
    }
}

/// A clock that stands still until told otherwise. Clones share one time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Mutex<Manual>>);

#[derive(Debug, Default)]
struct Manual {
    now: Duration,
    timers: Vec<Weak<Mutex<Alarm>>>,
}

#[derive(Debug)]
struct Alarm {
    deadline: Option<Duration>,
    bell: EventFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ManualClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass. Timers whose time has come ring.
    pub fn advance(&self, by: Duration) {
        let mut manual = lock(&self.0);
        manual.now = manual.now.saturating_add(by);
        let now = manual.now;
        manual.timers.retain(|timer| {
            let Some(alarm) = timer.upgrade() else { return false };
            ring(&lock(&alarm), now);
            true
        });
    }

    /// How long until the next timer rings; `None` if none is set.
    pub fn next(&self) -> Option<Duration> {
        let manual = lock(&self.0);
        let alarms = manual.timers.iter().filter_map(Weak::upgrade);
        let deadline = alarms.filter_map(|alarm| lock(&alarm).deadline).min()?;
        Some(deadline.saturating_sub(manual.now))
    }
}

fn ring(alarm: &Alarm, now: Duration) {
    if alarm.deadline.is_some_and(|deadline| deadline <= now) {
        // Fails only when it has rung 2⁶⁴ times already.
        let _ = alarm.bell.write(1);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        lock(&self.0).now
    }

    fn timer(&self) -> io::Result<Box<dyn Timer>> {
        let alarm = Alarm { deadline: None, bell: EventFd::new(EFD_NONBLOCK)? };
        let alarm = Arc::new(Mutex::new(alarm));
        lock(&self.0).timers.push(Arc::downgrade(&alarm));
        Ok(Box::new(ManualTimer { clock: self.clone(), alarm }))
    }
}

struct ManualTimer {
    clock: ManualClock,
    alarm: Arc<Mutex<Alarm>>,
}

impl Timer for ManualTimer {
    fn source(&self) -> Source {
        Source::Event(lock(&self.alarm).bell.as_raw_fd())
    }

    fn set(&mut self, delay: Duration) {
        let now = self.clock.now();
        let mut alarm = lock(&self.alarm);
        alarm.deadline = Some(now.saturating_add(delay));
        ring(&alarm, now);
    }

    fn cancel(&mut self) {
        let mut alarm = lock(&self.alarm);
        alarm.deadline = None;
        let _ = alarm.bell.read();
    }

    fn is_set(&self) -> bool {
        lock(&self.alarm).deadline.is_some()
    }

    fn fired(&mut self) -> bool {
        let now = self.clock.now();
        let fired = lock(&self.alarm).deadline.is_some_and(|deadline| deadline <= now);
        if fired {
            self.cancel();
        }
        fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_timer_fires_once_when_its_time_has_come() {
        let clock = ManualClock::new();
        let mut timer = clock.timer().unwrap();
        assert!(!timer.is_set() && !timer.fired());
        timer.set(Duration::from_micros(10));
        clock.advance(Duration::from_micros(4));
        assert_eq!(clock.next(), Some(Duration::from_micros(6)));
        assert!(timer.is_set() && !timer.fired());
        clock.advance(Duration::from_micros(6));
        assert!(timer.fired());
        assert!(!timer.fired() && !timer.is_set());
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn a_cancelled_timer_does_not_fire() {
        let clock = ManualClock::new();
        let mut timer = clock.timer().unwrap();
        timer.set(Duration::from_micros(10));
        clock.advance(Duration::from_micros(10));
        timer.cancel();
        assert!(!timer.fired());
        timer.set(Duration::ZERO);
        assert!(timer.fired());
    }

    #[test]
    fn a_system_timer_fires_and_is_quiet_afterwards() {
        let clock = SystemClock::new();
        let mut timer = clock.timer().unwrap();
        timer.set(Duration::from_secs(1000));
        assert!(timer.is_set() && !timer.fired());
        timer.set(Duration::ZERO);
        while !timer.fired() {
            std::thread::yield_now();
        }
        assert!(!timer.is_set() && !timer.fired());
        assert!(clock.now() <= clock.now());
    }
}
