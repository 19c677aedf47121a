//! The deliveries that this process has and that are neither settled nor handed back, in the order
//! in which they came.
//!
//! Each is taken out once: by its receipt, to be settled, or by a worker that stops, to be handed
//! back while a stage still holds the receipt.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::held_delivery::HeldDelivery;

/// Deliveries by the number of their receipt.
#[derive(Default)]
pub(super) struct HeldDeliveries(Mutex<Numbered>);

#[derive(Default)]
struct Numbered {
    next: u64,
    deliveries: BTreeMap<u64, HeldDelivery>,
}

impl HeldDeliveries {
    /// Keeps a delivery until it is taken. Returns its number.
    pub(super) fn keep(&self, delivery: HeldDelivery) -> u64 {
        let mut numbered = self.0.lock();
        let number = numbered.next;
        numbered.next += 1;
        numbered.deliveries.insert(number, delivery);
        number
    }

    /// Takes one out; `None` if it was taken before.
    pub(super) fn take(&self, number: u64) -> Option<HeldDelivery> {
        self.0.lock().deliveries.remove(&number)
    }

    /// Takes all out.
    pub(super) fn take_all(&self) -> Vec<HeldDelivery> {
        std::mem::take(&mut self.0.lock().deliveries).into_values().collect()
    }
}
