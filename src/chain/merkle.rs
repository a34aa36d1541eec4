//! Double SHA-256 and the merkle tree of transaction ids.

use sha2::{Digest as _, Sha256};

/// 32 bytes of a double SHA-256 in internal byte order (as hashed; displayed reversed).
pub type Hash256 = [u8; 32];

/// SHA-256 of the SHA-256 of `bytes` (the hash that Bitcoin uses for headers and transactions).
#[must_use]
pub fn sha256d(bytes: &[u8]) -> Hash256 {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// The parent of two nodes.
fn parent(left: &Hash256, right: &Hash256) -> Hash256 {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    sha256d(&both)
}

/// One level up: pairs hashed, the last one with itself where the count is odd.
fn level_up(nodes: &mut Vec<Hash256>) {
    let parents = nodes.len().div_ceil(2);
    for i in 0..parents {
        let right = nodes[(2 * i + 1).min(nodes.len() - 1)];
        nodes[i] = parent(&nodes[2 * i], &right);
    }
    nodes.truncate(parents);
}

/// The merkle root over `leaves`; `None` of no leaves.
#[must_use]
pub fn root(mut leaves: Vec<Hash256>) -> Option<Hash256> {
    while leaves.len() > 1 {
        level_up(&mut leaves);
    }
    leaves.first().copied()
}

/// The siblings on the way from the first leaf (the coinbase, not among `others`) to the root.
#[must_use]
pub fn branch(others: Vec<Hash256>) -> Vec<Hash256> {
    let mut branch = Vec::new();
    let mut level = others;
    while !level.is_empty() {
        // The first leaf's place is empty: its sibling is the first of the rest, and the pairs
        // above it begin with the second.
        branch.push(level.remove(0));
        level_up_or_clear(&mut level);
    }
    branch
}

/// [`level_up`] that leaves nothing of nothing.
fn level_up_or_clear(nodes: &mut Vec<Hash256>) {
    if !nodes.is_empty() {
        level_up(nodes);
    }
}

/// The root from the first leaf and its branch.
#[must_use]
pub fn fold(first: Hash256, branch: &[Hash256]) -> Hash256 {
    branch.iter().fold(first, |node, sibling| parent(&node, sibling))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(i: u32) -> Hash256 {
        sha256d(&i.to_le_bytes())
    }

    #[test]
    fn branch_and_root_agree_with_the_bitcoin_crate_for_every_count() {
        use bitcoin::hashes::Hash as _;
        for count in 1..70 {
            let leaves: Vec<_> = (0..count).map(leaf).collect();
            let expected = bitcoin::merkle_tree::calculate_root(
                leaves.iter().map(|l| bitcoin::Txid::from_byte_array(*l)),
            )
            .unwrap()
            .to_byte_array();
            assert_eq!(root(leaves.clone()), Some(expected), "root of {count}");
            let folded = fold(leaves[0], &branch(leaves[1..].to_vec()));
            assert_eq!(folded, expected, "branch of {count}");
        }
        assert_eq!(root(vec![]), None);
    }
}
