//! What invokes later: works the queue of events off, and brings outcomes to their destinations.
//!
//! One thread of its own. It decides nothing itself: `core::event_queue` says which event is next and what becomes
//! of it, the store makes that last, and only then the queue goes on. Must never: hold the only copy of anything, or
//! be waited for by an invocation.

mod attempt;
mod destination;
mod record;
mod settings;
mod view;
mod worker;

pub use view::{Asking, Pages};
pub use worker::Worker;
