//! What can be said of the shader without a device.

use wgpu::naga;

use super::*;

#[test]
fn every_variant_expands() {
    for variant in Variant::all() {
        let shader = Shader::new(variant).unwrap();
        let text = shader.wgsl(Shape { workgroup_size: 64, nonces_per_invocation: 1 }).unwrap();
        std::fs::write(format!("target/{variant}.wgsl"), &text).unwrap();
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::empty(),
        )
        .validate(&module)
        .unwrap();
    }
}
