//! Atomics of loom with what it lacks: an order of all `SeqCst` operations.
//!
//! loom takes a `SeqCst` load or store for an `Acquire` or `Release` one, but it knows fences.
//! Compilers map `SeqCst` operations to fences in one of two ways ([`Fences`]); what is right in
//! the language is right in both, so each model is run with both.
//!
//! `BROLGA_WEAKEN`, a list of `file:line:column`, makes the operations at these places `Relaxed`: a
//! bug put in on purpose, which the models have to find.

use std::cell::Cell;
use std::panic::Location;
pub use std::sync::atomic::Ordering;
use std::sync::{LazyLock, OnceLock};

/// Where the full fence of a `SeqCst` operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fences {
    /// After each store, as compilers for x86-64 have it.
    AfterStores,
    /// Before each load.
    BeforeLoads,
}

thread_local! {
    static FENCES: Cell<Fences> = const { Cell::new(Fences::AfterStores) };
}

/// Sets the way for the models that the calling thread runs.
pub fn set_fences(fences: Fences) {
    FENCES.set(fences);
}

static WEAKENED: LazyLock<String> =
    LazyLock::new(|| std::env::var("BROLGA_WEAKEN").unwrap_or_default());

/// The ordering of the operation at a place of the sources.
#[track_caller]
fn at_caller(ordering: Ordering) -> Ordering {
    if WEAKENED.is_empty() {
        return ordering;
    }
    let caller = Location::caller();
    let is_it = |place: &str| {
        let mut parts = place.rsplitn(3, ':');
        let (column, line, file) = (parts.next(), parts.next(), parts.next());
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        number(column) == Some(caller.column())
            && number(line) == Some(caller.line())
            && file.is_some_and(|file| caller.file().ends_with(file))
    };
    match WEAKENED.split(',').any(is_it) {
        true => Ordering::Relaxed,
        false => ordering,
    }
}

fn fence(ordering: Ordering, wanted: Fences) {
    if ordering == Ordering::SeqCst && FENCES.get() == wanted {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// The atomic of that name. Must be touched first by the thread that makes it.
        #[derive(Debug)]
        pub struct $name {
            initial: $value,
            inner: OnceLock<loom::sync::atomic::$name>,
        }

        impl $name {
            /// Returns an atomic with a value.
            #[must_use]
            pub const fn new(initial: $value) -> Self {
                Self {
                    initial,
                    inner: OnceLock::new(),
                }
            }

            fn inner(&self) -> &loom::sync::atomic::$name {
                self.inner
                    .get_or_init(|| loom::sync::atomic::$name::new(self.initial))
            }

            /// As of the standard library.
            #[track_caller]
            pub fn load(&self, ordering: Ordering) -> $value {
                let ordering = at_caller(ordering);
                fence(ordering, Fences::BeforeLoads);
                self.inner().load(ordering)
            }

            /// As of the standard library.
            #[track_caller]
            pub fn store(&self, value: $value, ordering: Ordering) {
                let ordering = at_caller(ordering);
                self.inner().store(value, ordering);
                fence(ordering, Fences::AfterStores);
            }

            /// As of the standard library.
            #[track_caller]
            pub fn swap(&self, value: $value, ordering: Ordering) -> $value {
                let ordering = at_caller(ordering);
                fence(ordering, Fences::BeforeLoads);
                let before = self.inner().swap(value, ordering);
                fence(ordering, Fences::AfterStores);
                before
            }

            /// As of the standard library.
            ///
            /// # Errors
            /// As of the standard library.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let (success, failure) = (at_caller(success), at_caller(failure));
                fence(success, Fences::BeforeLoads);
                let before = self.inner().compare_exchange(from, to, success, failure);
                fence(success, Fences::AfterStores);
                before
            }
        }

        impl Default for $name {
            fn default() -> Self {
                let atomic = Self::new(0);
                atomic.inner();
                atomic
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
