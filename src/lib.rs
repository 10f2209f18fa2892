//! Processes in Rust that always end well.
pub use epilogue_embed as embed;
