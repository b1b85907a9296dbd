//! The rules of views, sync, moves, collection and birth (PROTOCOL sections 3, 6, 9 to 12), one by one.
//!
//! The simulator walks all of them under faults; these tests read as the page does, each named after its rule. At the
//! end, mutants are put to them.

#[path = "rules/deletion.rs"]
mod deletion;
#[path = "rules/moves.rs"]
mod moves;
#[path = "rules/stage.rs"]
mod stage;
#[path = "rules/sync.rs"]
mod sync;
#[path = "rules/views.rs"]
mod views;
