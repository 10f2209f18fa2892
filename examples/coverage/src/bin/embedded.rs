//! The same with embed, as a program has it that wants its coverage data to survive.

use epilogue::embed;
use textmill::load;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _registered = embed::finalizer("nothing to do", || {});
    embed::cleanup_on_sigterm()?;
    embed::cleanup_on_crash()?;
    load::mill();
    Ok(embed::flush()?)
}
