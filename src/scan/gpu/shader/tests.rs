//! The shader's text, its translation by naga, and its results on Mesa's software device compared with the
//! reference implementation.

mod bare;
mod device;

use wgpu::naga::back::{hlsl, msl, spv};
use wgpu::naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use wgpu::naga::{Module, front::wgsl};

use super::*;

/// Usual and unusual shapes.
const SHAPES: [Shape; 4] = [shape(64, 1), shape(256, 16), shape(32, 3), shape(1, 1)];

const fn shape(workgroup_size: u32, nonces_per_invocation: u32) -> Shape {
    Shape { workgroup_size, nonces_per_invocation }
}

fn valid(text: &str) -> (Module, ModuleInfo) {
    let module = wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
    // No capability beyond what every device has.
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
    (module, info)
}

#[test]
fn every_variant_can_be_written_for_vulkan_metal_and_dx12() {
    for variant in Variant::all() {
        let shader = Shader::new(variant).unwrap();
        for shape in [SHAPES[0], SHAPES[2]] {
            let (module, info) = valid(&shader.wgsl(shape).unwrap());
            let words = spv::write_vec(&module, &info, &spv::Options::default(), None).unwrap();
            assert!(!words.is_empty());
            let (options, pipeline) = (msl::Options::default(), msl::PipelineOptions::default());
            let (text, names) = msl::write_string(&module, &info, &options, &pipeline).unwrap();
            assert!(text.contains(names.entry_point_names[0].as_ref().unwrap()), "{variant}");
            let (options, pipeline) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None).unwrap();
            assert!(text.contains(&format!("[numthreads({}, 1, 1)]", shape.workgroup_size)));
        }
    }
}

#[test]
fn the_textbook_is_valid() {
    for midstates in [Midstates::One, Midstates::Two, Midstates::Four] {
        let (module, _) = valid(&Shader::textbook(midstates).unwrap().wgsl(shape(64, 1)).unwrap());
        let capacity =
            module.constants.iter().find(|(_, c)| c.name.as_deref() == Some("HIT_CAPACITY"));
        let init = module.global_expressions[capacity.unwrap().1.init].clone();
        let expected = wgpu::naga::Literal::U32(HIT_CAPACITY as u32);
        assert_eq!(init, wgpu::naga::Expression::Literal(expected));
    }
}

/// The lines of the expanded function.
fn body(shader: &Shader) -> &str {
    shader.text.split_once("fn try_nonce(nonce: u32) {\n").unwrap().1
}

#[test]
fn the_expansion_has_neither_loops_nor_arrays() {
    for variant in Variant::all() {
        let shader = Shader::new(variant).unwrap();
        for line in body(&shader).lines() {
            let plain =
                line.starts_with("    let t") || line.starts_with("    if (") || line == "}";
            assert!(plain && !line.contains(['[', '%']), "{variant}: {line}");
        }
        assert_eq!(body(&shader).matches("report(").count(), variant.midstates.count());
    }
}

/// Rotations, shifts, and additions of up to three terms.
fn operations(variant: &str) -> [usize; 3] {
    let shader = Shader::new(Variant::find(variant).unwrap()).unwrap();
    let count = |symbol: &str| body(&shader).matches(symbol).count();
    // Swapping the nonce's bytes takes two left shifts and two right shifts; all other left shifts belong
    // to rotations.
    let rotations = count(" << ") - 2;
    // Every sum has its own line.
    let additions = body(&shader).lines().map(|line| line.matches(" + ").count().div_ceil(2)).sum();
    [rotations, count(" >> ") - rotations + 2, additions]
}

#[test]
fn the_expansion_has_as_few_operations_as_are_known_to_suffice() {
    assert_eq!(operations("k1"), [1020, 160, 638]);
    assert_eq!(operations("k2"), [1888, 240, 1200]);
    assert_eq!(operations("k4"), [3624, 400, 2324]);
    for (variant, same) in [("k1-some", "k1"), ("k2-all", "k2"), ("k4-some", "k4")] {
        assert_eq!(operations(variant), operations(same));
    }
}

#[test]
fn additions_become_multiply_adds() {
    let multiply_adds = |variant| {
        let shader = Shader::new(Variant::find(variant).unwrap()).unwrap();
        body(&shader).matches(" * params.one + ").count()
    };
    assert_eq!(
        [multiply_adds("k1"), multiply_adds("k1-some"), multiply_adds("k1-all")],
        [0, 675, 1057]
    );
    assert_eq!(
        [multiply_adds("k4"), multiply_adds("k4-some"), multiply_adds("k4-all")],
        [0, 2536, 3862]
    );
}

#[test]
fn every_variant_is_found_by_its_name() {
    assert_eq!(Variant::all().count(), 9);
    for variant in Variant::all() {
        assert_eq!(Variant::find(variant.name()), Some(variant));
    }
    assert_eq!(Variant::find("k3"), None);
}

#[test]
fn a_dispatch_covers_its_nonces_within_the_limits() {
    for (size, each) in [(1, 1), (32, 3), (64, 1), (256, 1), (256, 64)] {
        let span = u64::from(size) * u64::from(each);
        for count in [1, span - 1, span, span + 1, 65535 * span, 65535 * span + 1, MAX_NONCES] {
            let Some(nonces) = NonceRange::new(7, count.min(MAX_NONCES)) else { continue };
            let (x, y, z) = shape(size, each).workgroups(nonces);
            assert!(x <= 65535 && y <= 65535 && z == 1);
            let covered = u64::from(x) * u64::from(y) * span;
            assert!(covered >= nonces.count(), "{size}x{each}: {count}");
            // Less than a row of workgroups is wasted, so their numbers fit 32 bits.
            assert!(covered - nonces.count() < u64::from(y + 1) * span, "{size}x{each}: {count}");
        }
    }
}

#[test]
fn a_buffer_is_read_as_the_shader_writes_it() {
    let mut hits: Hits = bytemuck::Zeroable::zeroed();
    assert_eq!(Hits::SIZE, 4 + 8 * HIT_CAPACITY as u64);
    hits.list[0] = [9, 1];
    hits.list[1] = [u32::MAX, 3];
    let read = |hits: &Hits| Hits::read(bytemuck::bytes_of(hits)).unwrap();
    assert_eq!(read(&hits), Outcome { hits: Vec::new(), found: 0 });
    hits.found = 2;
    let two = vec![Hit { nonce: 9, midstate: 1 }, Hit { nonce: u32::MAX, midstate: 3 }];
    assert_eq!(read(&hits), Outcome { hits: two, found: 2 });
    for (found, overflowed) in [(HIT_CAPACITY, false), (HIT_CAPACITY + 1, true)] {
        hits.found = found as u32;
        assert_eq!(read(&hits).hits.len(), HIT_CAPACITY);
        assert_eq!(read(&hits).overflowed(), overflowed);
    }
    hits.found = u32::MAX;
    assert!(read(&hits).overflowed());
    assert_eq!(Hits::read(&bytemuck::bytes_of(&hits)[4..]), None);
    assert_eq!(Hits::read(&[]), None);
}
