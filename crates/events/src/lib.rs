//! What happens later: works the queue of events off, brings outcomes to their destinations, reads event sources, and
//! carries schedules out.
//!
//! On threads of its own. It decides nothing itself: `core::event_queue` says which event is next and what becomes
//! of it, the store makes that last, and only then the queue goes on; `core::event_source` says how records become
//! batches and how many are under way. Must never: hold the only copy of anything, or
//! be waited for by an invocation.

mod attempt;
mod destination;
mod record;
mod schedules;
mod settings;
mod sources;
mod view;
mod worker;

pub use schedules::{CarryOut, Schedules};
pub use sources::{Outside, Sources};
pub use view::{Asking, Pages};
pub use worker::Worker;
