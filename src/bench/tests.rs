//! What is measured is what was done.

use super::*;
use crate::scan::Kernel;
use crate::scan::cpu::tests::runnable_kernels;
use crate::scan::cpu::{CpuScanner, Fault, FaultyKernel, Sha2};

fn plan(kernels: Vec<Arc<dyn Kernel>>) -> Plan {
    let scanner = |kernel: &Arc<dyn Kernel>, threads| {
        Arc::new(CpuScanner::new(kernel.clone(), threads).unwrap()) as Arc<dyn Scanner>
    };
    let scanners = kernels.iter().flat_map(|kernel| [1, 2].map(|n| scanner(kernel, n)));
    Plan::of(scanners.collect(), Duration::from_millis(60))
}

fn measured(plan: Plan) -> Vec<Measurement> {
    measure(plan, &mut |_| ControlFlow::Continue(())).unwrap().unwrap()
}

#[test]
fn every_kernel_is_measured_and_found_true() {
    let kernels = runnable_kernels();
    let measured = measured(plan(kernels.clone()));
    assert_eq!(measured.len(), 4 * kernels.len());
    for result in measured {
        let summary = result.summary();
        assert_eq!(summary.samples, 3);
        assert!(summary.min.to_f64() > 0.0 && summary.min <= summary.median);
        assert!(summary.median <= summary.max);
        let tried = result.verified.unwrap();
        assert!(tried.sampled > 0, "{tried:?}");
        assert!(tried.candidates >= tried.in_sample);
    }
}

#[test]
fn a_faulty_kernel_is_not_verified() {
    for fault in [Fault::DropsHits, Fault::InventsHits, Fault::RepeatsHits, Fault::Miscounts] {
        let faulty = Arc::new(FaultyKernel { kernel: Arc::new(Sha2), fault });
        let mut plan = plan(vec![faulty]);
        // Long enough that there are candidates to be wrong about.
        plan.run_for = Duration::from_millis(400);
        for result in measured(plan) {
            let disagreement = result.verified.unwrap_err();
            let told = match fault {
                Fault::DropsHits => matches!(disagreement, Disagreement::Sample { .. }),
                Fault::InventsHits => matches!(disagreement, Disagreement::Wrong { .. }),
                Fault::RepeatsHits => matches!(disagreement, Disagreement::Twice { .. }),
                _ => matches!(disagreement, Disagreement::Count { .. }),
            };
            assert!(told, "{fault:?}: {disagreement}");
        }
    }
}

#[test]
fn it_can_be_broken_off() {
    let mut seen = 0;
    let broken_off = measure(plan(vec![Arc::new(Sha2)]), &mut |progress| {
        assert_eq!((progress.done, progress.slices), (seen, 16));
        seen += 1;
        if seen == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(broken_off.unwrap().is_none());
    assert_eq!(seen, 4);
}

#[test]
fn slices_are_many_and_not_too_short() {
    let ms = Duration::from_millis;
    assert_eq!(slices(ms(5_000)), (ms(250), 20));
    assert_eq!(slices(ms(1_000)), (ms(200), 5));
    assert_eq!(slices(ms(60)), (ms(20), 3));
    assert_eq!(slices(ms(7)), (ms(7), 1));
}

/// A measurement of these rates.
fn with(rates: &[u64]) -> Measurement {
    let slice = |rate: &u64| Slice { hashes: *rate, seconds: 1.0, cores: None };
    Measurement {
        info: CpuScanner::new(Arc::new(Sha2), 1).unwrap().info(),
        version_rolling: false,
        slices: rates.iter().map(slice).collect(),
        cycles_per_hash: Err(NoCycles::Shared),
        energy: Err(NoReading::Nothing),
        verified: Ok(Tried::default()),
    }
}

#[test]
fn the_median_is_in_the_middle() {
    assert_eq!(with(&[3, 1, 2]).summary().median, HashRate::from_f64(2.0));
    assert_eq!(with(&[4, 1, 2, 3]).summary().median, HashRate::from_f64(2.5));
    assert_eq!(with(&[4, 1, 2, 5]).summary().mean, HashRate::from_f64(3.0));
    assert_eq!(with(&[]).summary().samples, 0);
}

#[test]
fn a_team_hashes_together() {
    let scanner = || Arc::new(CpuScanner::new(Arc::new(Sha2), 1).unwrap()) as Arc<dyn Scanner>;
    let mut plan = plan(vec![]);
    plan.teams = vec![Team::of(vec![scanner(), scanner()]).unwrap()];
    assert!(Team::of(vec![]).is_none());
    let measured = measured(plan);
    assert_eq!(measured.len(), 2);
    let info = &measured[0].info;
    assert_eq!((info.id.kind(), info.kernel.as_str(), info.threads), ("all", "sha2 + sha2", 2));
    assert!(measured[0].verified.is_ok() && measured[0].summary().mean.to_f64() > 0.0);
}

#[test]
fn a_given_power_is_taken_as_it_is() {
    let mut plan = plan(vec![Arc::new(Sha2)]);
    plan.watts = Watts::new(50.0);
    for result in measured(plan) {
        let energy = result.energy.as_ref().unwrap();
        let per_gigahash = 50.0 / result.summary().mean.to_f64() * 1e9;
        assert!(energy.given && (energy.watts - 50.0).abs() < 1e-9);
        assert!((energy.joules_per_gigahash / per_gigahash - 1.0).abs() < 1e-9);
        assert!(result.cycles_per_hash.is_err());
    }
}
