//! The store in one file of redb, and in memory.
//!
//! Drivers of the contract in `control/store`: [`RedbStore`] (embedded, group commit; in the simulator without a thread, in a
//! [`MemoryFile`]) and [`MemoryStore`] (tests, the bench). Both judge transactions and serve watches from one history in memory.
//!
//! Always true: reads return committed values only; one writer at a time. Watches are tokio tasks, so a store
//! is used inside a runtime.
//!
//! Called by: the service's assembly, which opens the store; the store's copies, which create store files.

mod history;
mod memory;
mod memory_file;
mod redb_store;

pub use memory::MemoryStore;
pub use memory_file::MemoryFile;
pub use redb_store::RedbStore;
