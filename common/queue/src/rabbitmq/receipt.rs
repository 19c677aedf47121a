//! The receipt of a delivery: the one way in which a worker settles it.

use std::sync::Arc;

use async_trait::async_trait;

use super::held_deliveries::HeldDeliveries;
use crate::delivery::{Outcome, Settle, Settlement};
use crate::error::QueueError;

/// The receipt of one of the [`HeldDeliveries`]. If the delivery was handed back meanwhile, there is
/// nothing left to settle.
pub(super) struct RabbitMqReceipt {
    pub(super) held: Arc<HeldDeliveries>,
    pub(super) number: u64,
}

#[async_trait]
impl Settle for RabbitMqReceipt {
    async fn settle(self: Box<Self>, outcome: Outcome) -> Result<Settlement, QueueError> {
        match self.held.take(self.number) {
            Some(delivery) => delivery.settle(outcome).await,
            None => Err(QueueError::Stale),
        }
    }

    fn hand_back(self: Box<Self>) {
        if let Some(delivery) = self.held.take(self.number) {
            delivery.requeue();
        }
    }
}
