//! The CPU features that kernels need, and which of them kernels may use.

use std::fmt;

/// A CPU feature that a kernel needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuFeature {
    /// SSSE3.
    Ssse3,
    /// SSE4.1.
    Sse41,
    /// AVX2.
    Avx2,
    /// AVX-512 Foundation.
    Avx512f,
    /// AVX-512 Byte and Word Instructions.
    Avx512bw,
    /// The SHA extensions (SHA-NI).
    Sha,
}

/// The names that `--disable-cpu-features` takes, each with the features that it stands for.
const NAMES: [(&str, &[CpuFeature]); 7] = [
    ("avx512", &[CpuFeature::Avx512f, CpuFeature::Avx512bw]),
    ("avx512bw", &[CpuFeature::Avx512bw]),
    ("avx512f", &[CpuFeature::Avx512f]),
    ("avx2", &[CpuFeature::Avx2]),
    ("sha", &[CpuFeature::Sha]),
    ("sse4.1", &[CpuFeature::Sse41]),
    ("ssse3", &[CpuFeature::Ssse3]),
];

impl CpuFeature {
    /// The names that [`CpuFeature::named`] accepts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().map(|(name, _)| name)
    }

    /// The features that a name stands for: one, or those of a family (`avx512`); `None` for other names.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static [Self]> {
        NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, features)| features)
    }

    /// Its name in Rust's feature detection.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ssse3 => "ssse3",
            Self::Sse41 => "sse4.1",
            Self::Avx2 => "avx2",
            Self::Avx512f => "avx512f",
            Self::Avx512bw => "avx512bw",
            Self::Sha => "sha",
        }
    }

    /// The feature that every processor with this one also has, and that the compiler therefore assumes
    /// with it. Disabling that feature disables this one.
    const fn builds_on(self) -> Option<Self> {
        match self {
            Self::Ssse3 | Self::Sha => None,
            Self::Sse41 => Some(Self::Ssse3),
            Self::Avx2 => Some(Self::Sse41),
            Self::Avx512f => Some(Self::Avx2),
            Self::Avx512bw => Some(Self::Avx512f),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_detected(self) -> bool {
        match self {
            Self::Ssse3 => is_x86_feature_detected!("ssse3"),
            Self::Sse41 => is_x86_feature_detected!("sse4.1"),
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Avx512f => is_x86_feature_detected!("avx512f"),
            Self::Avx512bw => is_x86_feature_detected!("avx512bw"),
            Self::Sha => is_x86_feature_detected!("sha"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_detected(self) -> bool {
        false
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for CpuFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a kernel cannot be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The processor lacks this feature.
    #[error("this processor has no {0}")]
    Missing(CpuFeature),
    /// The user has disabled this feature, whether or not the processor has it.
    #[error("{0} is disabled by --disable-cpu-features")]
    Disabled(CpuFeature),
}

/// The features that kernels may use: those that the processor has and that are not disabled.
///
/// This governs neither what the compiler was told to assume nor what other crates detect by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// A bit for each disabled feature.
    disabled: u8,
}

impl CpuFeatures {
    /// All features of the processor.
    #[must_use]
    pub const fn detected() -> Self {
        Self { disabled: 0 }
    }

    /// The same without these, and without those that build on them.
    #[must_use]
    pub fn without(self, features: &[CpuFeature]) -> Self {
        let disabled = features.iter().fold(self.disabled, |all, feature| all | feature.bit());
        Self { disabled }
    }

    /// Checks that the processor has all of `needed`, and that none of them is disabled.
    ///
    /// # Errors
    /// Names the first feature that is disabled or missing.
    pub fn require(self, needed: &[CpuFeature]) -> Result<(), Unavailable> {
        for feature in needed {
            let with_prerequisites =
                std::iter::successors(Some(*feature), |feature| feature.builds_on());
            for feature in with_prerequisites {
                if self.disabled & feature.bit() != 0 {
                    return Err(Unavailable::Disabled(feature));
                }
            }
            if !feature.is_detected() {
                return Err(Unavailable::Missing(*feature));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::CpuFeature::{Avx2, Avx512bw, Avx512f, Sha, Sse41, Ssse3};
    use super::*;

    #[test]
    fn every_feature_has_a_name() {
        let all = [Ssse3, Sse41, Avx2, Avx512f, Avx512bw, Sha];
        for feature in all {
            assert_eq!(CpuFeature::named(feature.as_str()), Some(&[feature][..]));
        }
        assert_eq!(CpuFeature::names().count(), all.len() + 1);
        assert_eq!(CpuFeature::named("avx512").map(<[_]>::len), Some(2));
        assert_eq!(CpuFeature::named("AVX2"), None);
    }

    #[test]
    fn disabling_a_feature_disables_those_that_build_on_it() {
        let disabled = |features: &[CpuFeature], needed| {
            CpuFeatures::detected().without(features).require(&[needed]).err()
        };
        for (off, needed) in [
            (Avx2, Avx2),
            (Avx2, Avx512f),
            (Avx2, Avx512bw),
            (Avx512f, Avx512bw),
            (Ssse3, Avx512bw),
            (Sse41, Avx2),
            (Sha, Sha),
        ] {
            assert_eq!(disabled(&[off], needed), Some(Unavailable::Disabled(off)), "{needed}");
        }
        // Neither its own prerequisites nor unrelated features are affected.
        for (off, needed) in [(Avx512f, Avx2), (Avx512bw, Avx512f), (Avx2, Sha), (Sha, Ssse3)] {
            assert_eq!(disabled(&[off], needed), disabled(&[], needed), "{needed}");
        }
        assert_eq!(CpuFeatures::detected().require(&[]), Ok(()));
    }
}
