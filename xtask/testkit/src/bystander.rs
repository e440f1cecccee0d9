//! A caller with all rights that must be answered whatever a test does.

use std::{thread, time::Duration};

use tokio::{sync::oneshot, time::timeout};

/// The interval of the calls: short enough to notice a fault, too long to add load.
const PACE: Duration = Duration::from_millis(100);

/// A caller that goes on calling until [`Self::was_served`]. It has a thread of its own, because a test that
/// blocks its thread is not the server's fault.
pub struct Bystander {
    over: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Bystander {
    /// Connects, and calls again and again. A call that is not answered as it should be panics. Returns once
    /// the first call was answered.
    pub async fn start<C: 'static>(
        connect: impl AsyncFnOnce() -> C + Send + 'static,
        call: impl AsyncFn(&C) + Send + 'static,
    ) -> Self {
        let (ready, answered) = oneshot::channel();
        let (over, mut end) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let client = connect().await;
                call(&client).await;
                // The code that started the bystander waits for this.
                let _ = ready.send(());
                while timeout(PACE, &mut end).await.is_err() {
                    call(&client).await;
                }
            });
        });
        answered.await.expect("a bystander is answered at the start");
        Self { over, thread }
    }

    /// Fails unless each of its calls was answered.
    pub async fn was_served(self) {
        // The receiver is gone already if a call failed.
        let _ = self.over.send(());
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await.expect("it only waits");
        assert!(ended.is_ok(), "a bystander was not answered, see above");
    }
}
