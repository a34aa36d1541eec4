//! How few cycles a hash can take: operations counted against the ports that can do them.
//!
//! benches/NOTES.md says how they are counted. A processor that is not in here has no limit known to
//! us, and none is guessed.

use super::machine::Processor;

/// A core whose ports are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Core {
    /// Intel's Golden Cove and its successor of the same ports, in Xeons from Sapphire to Granite
    /// Rapids: two 512-bit ports, one of which rotates; `sha256rnds2` once in 3 cycles.
    GoldenCove,
    /// AMD's Zen 5 with full-width AVX-512: four 512-bit ports, two of which rotate; `sha256rnds2`
    /// once in 2 cycles.
    Zen5,
}

impl Core {
    fn of(processor: &Processor) -> Option<Self> {
        let has = |feature: &str| processor.features.iter().any(|f| f == feature);
        match (processor.vendor.as_deref()?, processor.family?, processor.model?) {
            // Virtual machines make model numbers up, but not a matrix unit: of family 6 only these
            // cores have one.
            ("GenuineIntel", 6, _) if has("amx_tile") && has("avx512f") => Some(Self::GoldenCove),
            // Turin and Granite Ridge; the notebooks' Zen 5 has narrower ports.
            ("AuthenticAMD", 26, 0x02 | 0x11 | 0x44) => Some(Self::Zen5),
            _ => None,
        }
    }
}

/// The fewest core cycles in which this processor can do a hash with this kernel, with 16 midstates
/// where the version is rolled; `None` where that is not known.
#[must_use]
pub fn cycles_per_hash(processor: &Processor, kernel: &str, version_rolling: bool) -> Option<f64> {
    match (Core::of(processor)?, kernel, version_rolling) {
        (Core::GoldenCove, "avx512", false) => Some(89.0),
        (Core::GoldenCove, "avx512", true) => Some(75.5),
        (Core::GoldenCove, "sha-ni", _) => Some(183.0),
        (Core::Zen5, "avx512", false) => Some(44.5),
        (Core::Zen5, "avx512", true) => Some(37.7),
        (Core::Zen5, "sha-ni", _) => Some(124.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(vendor: &str, family: u32, model: u32, features: &[&str]) -> Processor {
        Processor {
            vendor: Some(vendor.into()),
            family: Some(family),
            model: Some(model),
            features: features.iter().map(ToString::to_string).collect(),
            ..Processor::default()
        }
    }

    #[test]
    fn only_known_cores_have_limits() {
        let golden = processor("GenuineIntel", 6, 167, &["avx512f", "amx_tile"]);
        assert_eq!(cycles_per_hash(&golden, "avx512", true), Some(75.5));
        assert_eq!(cycles_per_hash(&golden, "sha2", false), None);
        let rocket = processor("GenuineIntel", 6, 167, &["avx512f"]);
        assert_eq!(cycles_per_hash(&rocket, "avx512", true), None);
        let turin = processor("AuthenticAMD", 26, 0x11, &[]);
        assert_eq!(cycles_per_hash(&turin, "sha-ni", false), Some(124.0));
        let strix = processor("AuthenticAMD", 26, 0x24, &[]);
        assert_eq!(cycles_per_hash(&strix, "avx512", false), None);
        assert_eq!(cycles_per_hash(&Processor::default(), "avx512", false), None);
    }
}
