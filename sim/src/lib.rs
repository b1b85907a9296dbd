//! A cluster in one thread: real nodes; virtual time, network, disks, clocks and clients; one seed.
//!
//! | module | one idea |
//! |---|---|
//! | `scenario`, `menu` | what `kvctl sim` is asked for; faults by name |
//! | `world` | all that is below, one event at a time |
//! | `events` | what can happen next, and in which order |
//! | `computer` | a node's process, and the disk that outlives it |
//! | `disk` | what survives a crash |
//! | `network` | what becomes of a message on its way |
//! | `faults` | what may go wrong in a run, and how often: each seed draws its own |
//! | `strike`, `cuts` | faults as they strike; links that are cut |
//! | `schedule`, `acts` | what happens at set times; how it is done |
//! | `members`, `churn` | machines that come, go, die and come back; as a steady flow |
//! | `places` | zones that fail whole; weights and zones that are changed |
//! | `disaster` | more are lost than may be, an operator forces the rest on, and the loss is charged |
//! | `views` | the views there were, which are settled, who is lost |
//! | `claims`, `asked` | what must be true at every moment |
//! | `chosen` | what five held, and that no five forget it |
//! | `client` | who calls, retries, and notes what it was told |
//! | `lister` | who lists all keys, each of which is judged like a read |
//! | `audit` | all is healed, and every key is tried |
//! | `checker`, `counting` | was the key one register? one counter? |
//! | `probes` | rare states that a run has met |
//! | `recorder`, [`Script`], `said` | what happened to the machines of a run, as text |
//! | `stage`, `bystander` | a script acted out, without a world that draws lots; what it is judged by |
//! | [`shrink`] | a seed that fails, made small |
//! | `window` | a long run is judged as it goes |
//! | `report`, `measure`, `least` | what a run tells; its figures; what had to move |
//! | `survey` | how all stand at set moments, and what they believe of each other |
//! | `summary`, [`timeline`] | a run in a few figures; as a picture |

mod acts;
mod asked;
mod audit;
mod bystander;
pub mod checker;
mod chosen;
mod churn;
mod claims;
mod client;
mod computer;
mod counting;
mod cuts;
mod disaster;
mod disk;
mod events;
mod faults;
mod least;
mod lister;
mod measure;
mod members;
mod menu;
mod network;
mod places;
mod probes;
mod recorder;
mod report;
mod said;
mod scenario;
mod schedule;
mod script;
mod shrink;
mod stage;
mod strike;
mod summary;
mod survey;
pub mod timeline;
mod views;
mod window;
mod world;

#[cfg(test)]
mod tests;

pub use checker::{Call, Reply};
pub use faults::{Counters, Profile};
pub use measure::{Metrics, Sample};
pub use menu::Kind;
pub use report::{Called, Counts, Failure, Report};
pub use scenario::{Clock, Disk, Faults, Network, Scenario, Set, Workload};
pub use schedule::{Act, Timed};
pub use script::{Cast, Script};
pub use shrink::{Shrunk, shrink};
pub use summary::{Quantiles, Summary};
pub use survey::{Stand, Survey};
pub use world::{run, run_telling};

/// A microsecond, in nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A second.
pub const SEC: u64 = 1_000_000_000;
