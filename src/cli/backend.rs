//! What hashes, as `--backend` and `--disable-cpu-features` take it.

use std::str::FromStr;

use crate::scan::cpu::{CpuFeature, CpuFeatures, KernelName};
use crate::value_error::{ValueError, slip};

/// A kernel by its name.
fn kernel(text: &str) -> Result<KernelName, ValueError> {
    KernelName::find(text).ok_or_else(|| {
        let why = format!("there is no kernel {text:?}");
        let names: Vec<_> = KernelName::all().map(KernelName::as_str).collect();
        match slip(text, names.iter().copied()) {
            Some(near) => ValueError::new(why).hint(format!("did you mean cpu:{near}?")),
            None => ValueError::new(why).hint(format!("kernels: {}", names.join(", "))),
        }
    })
}

/// The long help of `--backend`, with the kernels from their table.
pub(super) fn long_help() -> String {
    let kernels: Vec<_> = KernelName::all().map(KernelName::as_str).collect();
    format!(
        "What hashes, by commas: auto, cpu, gpu, cpu:KERNEL or gpu:N\n\n\
         `auto` is all CPU cores with the fastest kernel, and every real graphics card; `cpu` and \
         `gpu` are one or the other; `cpu:KERNEL` names a kernel ({}), of which `bench` and `check` \
         take several; `gpu:N` is the device that `adit devices` lists with this number.",
        kernels.join(", "),
    )
}

/// What can stand in `--backend` on any machine.
pub(super) fn suggested_backends() -> Vec<String> {
    let kernels = KernelName::all().map(|kernel| format!("cpu:{kernel}"));
    ["auto", "cpu", "gpu"].map(str::to_owned).into_iter().chain(kernels).collect()
}

/// The CPU features that can be disabled.
pub(super) fn suggested_cpu_features() -> Vec<String> {
    CpuFeature::names().map(str::to_owned).collect()
}

/// Takes the CPU features to be disabled, by commas, and gives those that are left.
///
/// # Errors
/// When there is no feature of such a name.
pub fn without_cpu_features(text: &str) -> Result<CpuFeatures, ValueError> {
    text.split(',').map(str::trim).try_fold(CpuFeatures::detected(), |features, name| {
        let disabled = CpuFeature::named(name).ok_or_else(|| {
            let names: Vec<_> = CpuFeature::names().collect();
            ValueError::new(format!("there is no CPU feature {name:?} that a kernel needs"))
                .hint(format!("features: {}", names.join(", ")))
        })?;
        Ok(features.without(disabled))
    })
}

/// One entry of `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendSpec {
    /// All there is, with what measures fastest.
    Auto,
    /// All CPU cores: with this kernel, or with the fastest.
    Cpu(Option<KernelName>),
    /// Every real graphics card, or the device of this number.
    Gpu(Option<usize>),
}

impl FromStr for BackendSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("auto", "") if text == "auto" => Ok(Self::Auto),
            ("cpu", "") if text == "cpu" => Ok(Self::Cpu(None)),
            ("cpu", name) => kernel(name).map(|kernel| Self::Cpu(Some(kernel))),
            ("gpu", "") if text == "gpu" => Ok(Self::Gpu(None)),
            ("gpu", number) => number.parse().map(|index| Self::Gpu(Some(index))).map_err(|_| {
                ValueError::new(format!("{number:?} is no number of a device"))
                    .hint("write gpu:0; `adit devices` lists the numbers")
            }),
            _ => {
                let known = suggested_backends();
                let known = known.iter().map(String::as_str);
                let why = format!("there is no backend {text:?}");
                Err(match nearest_backend(text, known.clone()) {
                    Some(near) => ValueError::new(why).hint(format!("did you mean {near}?")),
                    None => ValueError::new(why)
                        .hint(format!("backends: {}", known.collect::<Vec<_>>().join(", "))),
                })
            }
        }
    }
}

/// A bare kernel name is the likeliest slip: `avx2` is meant to be `cpu:avx2`.
fn nearest_backend<'a>(
    text: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    known.clone().find(|name| name.strip_prefix("cpu:") == Some(text)).or_else(|| slip(text, known))
}

/// A list of backends, in which no kernel and no card stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendList(Vec<BackendSpec>);

impl BackendList {
    /// The entries, at least one.
    #[must_use]
    pub fn specs(&self) -> &[BackendSpec] {
        &self.0
    }

    /// Takes a list for a command that hashes with one CPU kernel: with one entry for the CPU at
    /// most.
    ///
    /// # Errors
    /// When it is no list of backends, or names several kernels.
    pub fn of_one_kernel(text: &str) -> Result<Self, ValueError> {
        let list: Self = text.parse()?;
        let kernels = list.0.iter().filter(|spec| matches!(spec, BackendSpec::Cpu(_))).count();
        if kernels > 1 {
            return Err(ValueError::new("it names more than one CPU kernel").hint(
                "this command hashes with one of them; `adit bench` compares several, and `adit \
                 check` checks them",
            ));
        }
        Ok(list)
    }
}

impl FromStr for BackendList {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let specs: Vec<BackendSpec> =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?;
        let count = |wanted: &dyn Fn(&BackendSpec) -> bool| {
            specs.iter().filter(|spec| wanted(spec)).count()
        };
        let every_kernel = |spec: &_| matches!(spec, BackendSpec::Auto | BackendSpec::Cpu(None));
        let of_the_cpu = |spec: &_| matches!(spec, BackendSpec::Auto | BackendSpec::Cpu(_));
        if count(&every_kernel) > 0 && count(&of_the_cpu) > 1 {
            return Err(ValueError::new("the CPU stands in it more than once")
                .hint("auto and cpu take every kernel already"));
        }
        if count(&|spec| matches!(spec, BackendSpec::Auto | BackendSpec::Gpu(None))) > 1 {
            return Err(ValueError::new("the graphics cards stand in it more than once")
                .hint("auto and gpu take every card already"));
        }
        if specs.iter().any(|spec| count(&|other| other == spec) > 1) {
            return Err(ValueError::new("a backend stands in it more than once"));
        }
        Ok(Self(specs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let error = text.parse::<BackendList>().unwrap_err();
        format!("{} | {}", error.why, error.hint.unwrap_or_default())
    }

    #[test]
    fn backends() {
        let list = |text: &str| text.parse::<BackendList>().map(|list| list.0);
        assert_eq!(list("auto"), Ok(vec![BackendSpec::Auto]));
        assert_eq!(list("cpu"), Ok(vec![BackendSpec::Cpu(None)]));
        assert_eq!(
            list(" cpu:sha-ni "),
            Ok(vec![BackendSpec::Cpu(Some(kernel("sha-ni").unwrap()))])
        );
        let (cpu, gpu) = (BackendSpec::Cpu(None), BackendSpec::Gpu);
        assert_eq!(list("gpu, cpu"), Ok(vec![gpu(None), cpu]));
        assert_eq!(list("cpu,gpu:0,gpu:1"), Ok(vec![cpu, gpu(Some(0)), gpu(Some(1))]));
        assert_eq!(list("auto,gpu:3"), Ok(vec![BackendSpec::Auto, gpu(Some(3))]));
        for (text, why) in [
            ("gpu:", "\"\" is no number of a device | write gpu:0"),
            ("gpu:-1", "is no number of a device"),
            ("gpu:one", "is no number of a device"),
            ("gpu,gpu", "the graphics cards stand in it more than once"),
            ("auto,gpu", "the graphics cards stand in it more than once"),
            ("gpu:1,cpu,gpu:1", "a backend stands in it more than once"),
            ("cpu:sha2,cpu:sha2", "a backend stands in it more than once"),
            ("cpu,cpu:avx2", "more than once"),
            ("auto,cpu", "the CPU stands in it more than once"),
            ("quux", "there is no backend \"quux\" | backends: auto, cpu, gpu, cpu:sha2"),
            ("avx2", "did you mean cpu:avx2?"),
            ("cpu:", "there is no kernel \"\""),
            ("auto:", "there is no backend \"auto:\""),
            ("cpu:avx51", "did you mean cpu:avx512?"),
            ("cpuu", "did you mean cpu?"),
            ("cpu,", "there is no backend \"\""),
            ("", "there is no backend \"\""),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
    }
    #[test]
    fn several_kernels_are_for_commands_that_compare_them() {
        let kernels: Vec<_> = KernelName::all().collect();
        let text = kernels.iter().map(|kernel| format!("cpu:{kernel}")).collect::<Vec<_>>();
        let specs: Vec<_> = kernels.iter().map(|kernel| BackendSpec::Cpu(Some(*kernel))).collect();
        assert_eq!(text.join(",").parse::<BackendList>().map(|list| list.0), Ok(specs));
        if kernels.len() > 1 {
            let refused = BackendList::of_one_kernel(&text.join(",")).unwrap_err();
            assert_eq!(refused.why, "it names more than one CPU kernel");
        }
        for one in ["auto", "cpu", "cpu:sha2,gpu:0", "gpu:0,gpu:1"] {
            assert_eq!(BackendList::of_one_kernel(one), one.parse());
        }
        assert!(BackendList::of_one_kernel("auto,cpu").is_err());
    }

    #[test]
    fn features_are_disabled_by_name() {
        let left = |features: &[CpuFeature]| CpuFeatures::detected().without(features);
        let (avx2, sha) = (CpuFeature::Avx2, CpuFeature::Sha);
        assert_eq!(without_cpu_features("avx2"), Ok(left(&[avx2])));
        assert_eq!(without_cpu_features("sha, avx2"), Ok(left(&[avx2, sha])));
        let avx512 = left(&[CpuFeature::Avx512f, CpuFeature::Avx512bw]);
        assert_eq!(without_cpu_features("avx512"), Ok(avx512));
        for wrong in ["", "avx2,", "avx1024", "sha-ni", "AVX2"] {
            let error = without_cpu_features(wrong).unwrap_err();
            assert!(error.why.contains("there is no CPU feature"), "{wrong}: {error}");
            assert!(error.hint.unwrap().contains("avx512, avx512bw, avx512f, avx2, sha, "));
        }
    }
}
