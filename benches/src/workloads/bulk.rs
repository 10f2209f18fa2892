//! W4: 64 MiB to a worker, and back.

use crate::figure::Printer;
use crate::payload::Kind;
use crate::peers;
use crate::settings::Settings;
use crate::timing::typical;

pub(super) fn run(print: Printer<'_>, settings: Settings) {
    let len = settings.pick(64 << 20, 64 << 20, 4 << 20);
    for kind in Kind::ALL {
        let mut pool = peers::start(print.peer, 2);
        if let Some(payload) = pool.payload(kind, len) {
            let before = payload.sum();
            let mut payload = Some(payload);
            let time = typical(settings.pick(5, 3, 1), || {
                payload = payload.take().map(|payload| pool.echo(payload));
            });
            assert_eq!(payload.map(|payload| payload.sum()), Some(before), "it came back");
            print.emit(kind.name(), "ms", time * 1e3);
            print.emit(kind.name(), "GB_per_s", 2.0 * len as f64 / time / 1e9);
        }
        pool.close();
    }
}
