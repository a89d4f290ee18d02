//! Ctrl-C and SIGTERM: the first ends the run at the next safe point, the second at once.

use maxim_engine::CancelFlag;
use std::thread;

/// Exit code of an interrupted run.
const INTERRUPTED: i32 = 130;

/// Listens for signals for the rest of the process's life.
pub(crate) fn listen(cancel: &CancelFlag, first: impl Fn() + Send + 'static) {
    let cancel = cancel.clone();
    let listen = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let mut signals = 0;
            loop {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
                signals += 1;
                if signals > 1 {
                    std::process::exit(INTERRUPTED);
                }
                cancel.cancel();
                first();
            }
        });
    };
    // Without the thread Ctrl-C still ends the process, as by default: nothing is lost but politeness.
    let _ = thread::Builder::new().name("signals".to_owned()).spawn(listen);
}
