//! Sizes and times that several files of this protocol share.

use std::time::Duration;

/// The largest template that is read: a block's 4 million weight units are at most 8 MB of hex, and
/// the ids and hashes of the 16,666 smallest transactions 4 MB.
pub const TEMPLATE_BYTES: usize = 16 << 20;
/// The largest response to any other call.
pub const RESPONSE_BYTES: usize = 1 << 20;
/// How long a node may take to answer a call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take for a small call while mining goes on: a solution may be waiting for it.
pub const SMALL_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a template must have been mined before the tip is watched. On a chain that grows by our
/// own blocks no template lasts this long, and the watch costs nothing.
pub const TIP_WATCH_DELAY: Duration = Duration::from_millis(500);
/// How often the template is fetched again for new transactions. Nodes cache theirs for 5 s.
pub const REFRESH: Duration = Duration::from_secs(10);
