//! Embed.
