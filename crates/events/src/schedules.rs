//! Carries schedules out: follows their documents, sleeps until the next is due, tries it as often as it says, and
//! keeps how that went.
//!
//! `core::schedule` says when. What is done, and as whom, is behind `CarryOut`: this room knows nothing of operations.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use ondol_core::schedule::{AfterCompletion, Due, Outcome, Run, Schedule, Timetable};
use ondol_core::time::PolicyTime;
use ondol_failpoint::reach;
use ondol_observe::{clock, notice};
use ondol_store::{Changes, Committed, Precondition, Revision, Store, StoreError, Transaction, keys};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The calendar is looked at so often at least: the system's clock may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(30);
/// Attempts at the same time; further ones that are due wait.
const ATTEMPTS_AT_ONCE: usize = 32;
/// Tries to keep how a schedule went while its user changes it.
const WRITES_MAX: usize = 20;

/// Does what a schedule is for. The error says why that failed.
pub trait CarryOut {
    fn carry_out(&self, schedule: &Schedule) -> impl Future<Output = Result<(), String>>;
}

/// An occurrence that is waited for.
#[derive(Debug, Clone, Copy)]
struct Next {
    due: Due,
    /// When the next attempt is to begin.
    at: PolicyTime,
    /// Those that failed.
    attempts: u32,
}

impl Next {
    fn first(due: Due) -> Self {
        Self { due, at: due.at, attempts: 0 }
    }
}

/// A schedule as it was read last.
#[derive(Debug)]
struct Held {
    schedule: Rc<Schedule>,
    revision: Revision,
    timetable: Rc<Timetable>,
    fired: Option<PolicyTime>,
    next: Option<Next>,
    /// An attempt is under way.
    is_busy: bool,
}

/// How an attempt ended.
struct Ended {
    schedule: Rc<Schedule>,
    revision: Revision,
    trouble: Option<String>,
    /// The last occurrence that is over.
    fired: Option<PolicyTime>,
    retry: Option<Next>,
}

pub struct Schedules<C> {
    store: Store,
    carry: Rc<C>,
    held: HashMap<String, Held>,
    /// When attempts are to begin, and of which schedule: what `held` says, in order.
    queue: BTreeSet<(PolicyTime, String)>,
    /// Attempts, and removals, which have nothing to tell.
    attempts: JoinSet<Option<Ended>>,
    /// Schedules whose trouble the operator has heard of.
    warned: HashSet<String>,
}

impl<C> std::fmt::Debug for Schedules<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedules").field("schedules", &self.held.len()).finish_non_exhaustive()
    }
}

impl<C: CarryOut + 'static> Schedules<C> {
    pub fn new(store: Store, carry: C) -> Self {
        Self {
            store,
            carry: Rc::new(carry),
            held: HashMap::new(),
            queue: BTreeSet::new(),
            attempts: JoinSet::new(),
            warned: HashSet::new(),
        }
    }

    /// Works until the server stops: then nothing is begun any more, and what runs is waited for.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut changed = self.store.watch();
        let mut at = self.store.revision();
        self.read_all();
        changed.mark_changed();
        loop {
            self.begin_what_is_due();
            let wait = match self.queue.first() {
                Some((at, _)) if self.attempts.len() < ATTEMPTS_AT_ONCE => {
                    clock::until_calendar(*at).min(LOOK)
                }
                _ => LOOK,
            };
            tokio::select! {
                change = changed.changed() => {
                    if change.is_err() {
                        break;
                    }
                    at = self.follow(at);
                }
                Some(ended) = self.attempts.join_next() => match ended {
                    Ok(Some(ended)) => self.ended(ended),
                    Ok(None) => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                _ = stopping.wait_for(|stopping| *stopping) => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        while self.attempts.join_next().await.is_some() {}
    }

    /// Also those that were there and may be gone.
    fn read_all(&mut self) {
        let mut all: BTreeSet<String> = self.held.keys().cloned().collect();
        all.extend(self.store.scan(keys::SCHEDULES, None, usize::MAX).into_iter().map(|(key, _)| key));
        all.iter().for_each(|key| self.read(key));
    }

    fn follow(&mut self, at: Revision) -> Revision {
        match self.store.changes(at) {
            Changes::Compacted(revision) => {
                self.read_all();
                revision
            }
            Changes::Events(events) => {
                let newest = events.last().map_or(at, |change| change.revision);
                let schedules: BTreeSet<String> = events
                    .into_iter()
                    .map(|change| change.key)
                    .filter(|key| key.starts_with(keys::SCHEDULES))
                    .collect();
                schedules.iter().for_each(|key| self.read(key));
                newest
            }
        }
    }

    /// Takes a schedule in as its documents say.
    fn read(&mut self, key: &str) {
        let found = match self.store.document::<Schedule>(key) {
            Ok(found) => found,
            Err(error) => {
                notice::error(&format!("a schedule can't be read and isn't carried out: {error}"));
                None
            }
        };
        let Some((schedule, revision)) = found else {
            self.warned.remove(key);
            return self.forget(key);
        };
        if self.held.get(key).is_some_and(|held| held.revision == revision) {
            return;
        }
        let timetable = match schedule.timetable() {
            Ok(timetable) => Rc::new(timetable),
            Err(why) => {
                notice::error(&format!("the {key} isn't carried out: {why}"));
                return self.forget(key);
            }
        };
        let fired = run_of(&self.store, &schedule).fired;
        // An attempt of one that was deleted, and made anew by its name, is none of this one.
        let is_same = |held: &Held| held.schedule.created_epoch_millis == schedule.created_epoch_millis;
        let is_busy = self.held.get(key).is_some_and(|held| held.is_busy && is_same(held));
        self.wait_for(key, None);
        let schedule = Rc::new(schedule);
        self.held.insert(key.to_owned(), Held { schedule, revision, timetable, fired, next: None, is_busy });
        if !is_busy {
            self.wait_for_what_comes(key);
        }
    }

    fn forget(&mut self, key: &str) {
        self.wait_for(key, None);
        self.held.remove(key);
    }

    /// Goes on with what the timetable says; or with nothing, if that is over.
    fn wait_for_what_comes(&mut self, key: &str) {
        let Some(Held { schedule, revision, timetable, fired, .. }) = self.held.get(key) else { return };
        if !schedule.settings.enabled {
            return self.wait_for(key, None);
        }
        let age = schedule.settings.target.age_seconds_max.into();
        let next = timetable.due(*fired, clock::calendar(), age).map(Next::first);
        if next.is_none() && schedule.settings.after_completion == AfterCompletion::Delete {
            let (store, schedule, revision) = (self.store.clone(), Rc::clone(schedule), *revision);
            self.attempts.spawn_local(async move {
                remove(&store, &schedule, revision).await;
                None
            });
        }
        self.wait_for(key, next);
    }

    fn wait_for(&mut self, key: &str, next: Option<Next>) {
        let Some(held) = self.held.get_mut(key) else { return };
        if let Some(before) = std::mem::replace(&mut held.next, next) {
            self.queue.remove(&(before.at, key.to_owned()));
        }
        if let Some(next) = next {
            self.queue.insert((next.at, key.to_owned()));
        }
    }

    fn begin_what_is_due(&mut self) {
        while self.attempts.len() < ATTEMPTS_AT_ONCE {
            let now = clock::calendar();
            if self.queue.first().is_none_or(|(at, _)| *at > now) {
                return;
            }
            let Some((_, key)) = self.queue.pop_first() else { return };
            let Some(held) = self.held.get_mut(&key) else { continue };
            let Some(next) = held.next.take() else { continue };
            held.is_busy = true;
            let (schedule, timetable) = (Rc::clone(&held.schedule), Rc::clone(&held.timetable));
            let (revision, store, carry) = (held.revision, self.store.clone(), Rc::clone(&self.carry));
            self.attempts.spawn_local(async move {
                let (trouble, fired, retry) = attempt(&store, &*carry, &schedule, &timetable, next).await;
                Some(Ended { schedule, revision, trouble, fired, retry })
            });
        }
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { schedule, revision, trouble, fired, retry } = ended;
        let key = keys::schedule(&schedule.group, &schedule.name);
        let Some(held) = self.held.get_mut(&key) else { return };
        // Another may have been made by its name, with an attempt of its own under way.
        if held.schedule.created_epoch_millis != schedule.created_epoch_millis {
            return;
        }
        held.is_busy = false;
        let is_changed = held.revision != revision;
        held.fired = held.fired.max(fired);
        self.warn(key.clone(), &schedule, trouble);
        match retry {
            Some(next) if !is_changed => self.wait_for(&key, Some(next)),
            _ => self.wait_for_what_comes(&key),
        }
    }

    fn warn(&mut self, key: String, schedule: &Schedule, trouble: Option<String>) {
        let Some(why) = trouble else {
            self.warned.remove(&key);
            return;
        };
        if self.warned.insert(key) {
            let (Schedule { group, name, .. }, why) = (schedule, why.trim_end_matches('.'));
            notice::warning(&format!(
                "the schedule {group}/{name} failed: {why}. This is said once until it succeeds; see ondol schedule show {group}/{name}"
            ));
        }
    }
}

/// One attempt, and keeping how it went. Gives what went wrong, the last occurrence that is over, and the next attempt.
async fn attempt<C: CarryOut>(
    store: &Store,
    carry: &C,
    schedule: &Schedule,
    timetable: &Timetable,
    next: Next,
) -> (Option<String>, Option<PolicyTime>, Option<Next>) {
    let Next { due, attempts, .. } = next;
    let target = &schedule.settings.target;
    let age_seconds = target.age_seconds_max;
    let is_too_old = target.is_too_old(due.at, clock::calendar());
    let trouble = match is_too_old {
        true => Some(format!("it was due more than {age_seconds} seconds ago (MaximumEventAgeInSeconds)")),
        false => carry.carry_out(schedule).await.err(),
    };
    let attempts = attempts + u32::from(!is_too_old);
    let now = clock::calendar();
    let retry = match trouble {
        Some(_) if !is_too_old => target.retry(due.at, attempts, now).map(|at| Next { due, at, attempts }),
        _ => None,
    };
    // The next occurrence does the same: it takes the place of a retry that would be later.
    let coming = timetable.due(Some(due.occurrence), now, age_seconds.into());
    let retry = retry.filter(|retry| coming.is_none_or(|coming| retry.at < coming.at));
    let mut run = run_of(store, schedule);
    if retry.is_none() {
        run.fired = run.fired.max(Some(due.occurrence));
    }
    let ended_epoch_millis = clock::epoch_millis();
    run.outcome =
        Some(Outcome { occurrence: due.occurrence, ended_epoch_millis, attempts, trouble: trouble.clone() });
    reach("schedules.before-outcome");
    keep(store, schedule, &run).await;
    reach("schedules.after-outcome");
    (trouble, run.fired, retry)
}

fn run_of(store: &Store, schedule: &Schedule) -> Run {
    let key = keys::schedule_run(&schedule.group, &schedule.name);
    match store.document::<Run>(&key) {
        Ok(found) => found.map(|(run, _)| run).unwrap_or_default(),
        Err(error) => {
            notice::error(&format!("how a schedule went can't be read: {error}"));
            Run::default()
        }
    }
}

/// Keeps how a schedule went, as long as it is there.
async fn keep(store: &Store, schedule: &Schedule, run: &Run) {
    let key = keys::schedule(&schedule.group, &schedule.name);
    for _ in 0..WRITES_MAX {
        let revision = match store.document::<Schedule>(&key) {
            Ok(Some((there, revision))) if there.created_epoch_millis == schedule.created_epoch_millis => {
                revision
            }
            _ => return,
        };
        let transaction = Transaction::default()
            .when(Precondition::Unchanged(key.clone(), revision))
            .put(keys::schedule_run(&schedule.group, &schedule.name), run);
        match store.commit(transaction).await {
            Ok(Committed::Conflict) => {}
            Ok(Committed::At(_)) => return,
            Err(error) => return unkept(&key, &error),
        }
    }
}

/// Removes a schedule that is over, unless it was changed.
async fn remove(store: &Store, schedule: &Schedule, revision: Revision) {
    let key = keys::schedule(&schedule.group, &schedule.name);
    let transaction = Transaction::default()
        .when(Precondition::Unchanged(key.clone(), revision))
        .delete(key.clone())
        .delete(keys::schedule_run(&schedule.group, &schedule.name));
    if let Err(error) = store.commit(transaction).await {
        unkept(&key, &error);
    }
}

fn unkept(key: &str, error: &StoreError) {
    notice::error(&format!(
        "how the {key} went can't be kept, and after a restart it may run again: {error}"
    ));
}
