//! Lines of one key wait for one another; all others do not.

use std::collections::HashMap;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Keys remembered before those are dropped that nobody is at any more.
const MANY: usize = 4_096;

/// The last turn at each key.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: HashMap<String, oneshot::Receiver<()>>,
}

/// A turn at a key. It is over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _over: oneshot::Sender<()>,
}

impl Order {
    /// The next turn at this key.
    pub(super) fn turn(&mut self, key: &str) -> Turn {
        if self.last.len() >= MANY {
            self.last.retain(|_, last| last.try_recv() == Err(TryRecvError::Empty));
        }
        let (over, last) = oneshot::channel();
        Turn { before: self.last.insert(key.to_owned(), last), _over: over }
    }
}

impl Turn {
    /// Does this once the turns before are over, and ends this one.
    pub(super) async fn come<T>(self, what: impl Future<Output = T>) -> T {
        if let Some(before) = self.before {
            // Dropped without a word: that is how a turn ends.
            let _ = before.await;
        }
        what.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_at_one_key_follow_each_other() {
        let mut order = Order::default();
        let (first, second, other) = (order.turn("k"), order.turn("k"), order.turn("l"));
        other.come(async {}).await;
        let done = std::cell::RefCell::new(Vec::new());
        tokio::join!(
            second.come(async { done.borrow_mut().push(2) }),
            first.come(async {
                tokio::task::yield_now().await;
                done.borrow_mut().push(1);
            }),
        );
        assert_eq!(done.into_inner(), [1, 2]);
        order.turn("k").come(async {}).await;
    }

    #[test]
    fn keys_that_nobody_is_at_are_forgotten() {
        let mut order = Order::default();
        let held = order.turn("held");
        for i in 0..3 * MANY {
            drop(order.turn(&i.to_string()));
        }
        assert!(order.last.len() <= MANY && order.last.contains_key("held"));
        drop(held);
    }
}
