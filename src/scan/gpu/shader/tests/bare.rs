//! Runs a shader on a device without the rest of the backend. Tests and benches include this file, so it
//! uses nothing of the crate.

use std::time::Duration;

/// An open device.
pub struct Card {
    /// Its name, driver and type.
    pub info: wgpu::AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl Card {
    /// Opens every device, in the system's order. An error says why a device cannot be opened.
    pub fn all() -> impl Iterator<Item = Result<Self, String>> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::PRIMARY;
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
        adapters.into_iter().map(|adapter| {
            let info = adapter.get_info();
            let opened =
                pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
            let (device, queue) = opened.map_err(|error| format!("{}: {error}", info.name))?;
            Ok(Self { info, device, queue })
        })
    }

    /// Compiles a shader; `params` and `hits` are the sizes of its buffers in bytes.
    pub fn pipeline(&self, wgsl: &str, entry_point: &str, params: u64, hits: u64) -> Pipeline {
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let compiled = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let buffer = |size, usage| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let slots = [(); 2].map(|()| {
            let params = buffer(params, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
            let found = buffer(
                hits,
                wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
            );
            let home = buffer(hits, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &compiled.get_bind_group_layout(0),
                entries: &[
                    wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 1, resource: found.as_entire_binding() },
                ],
            });
            Slot { params, found, home, bindings, submitted: None }
        });
        Pipeline { device: self.device.clone(), queue: self.queue.clone(), compiled, slots }
    }
}

/// A compiled shader, with buffers for two batches in flight.
pub struct Pipeline {
    device: wgpu::Device,
    queue: wgpu::Queue,
    compiled: wgpu::ComputePipeline,
    slots: [Slot; 2],
}

struct Slot {
    params: wgpu::Buffer,
    found: wgpu::Buffer,
    home: wgpu::Buffer,
    bindings: wgpu::BindGroup,
    submitted: Option<wgpu::SubmissionIndex>,
}

impl Pipeline {
    /// Starts a batch in slot 0 or 1, which must be idle.
    pub fn submit(&mut self, slot: usize, params: &[u8], workgroups: (u32, u32, u32)) {
        let slot = &mut self.slots[slot];
        self.queue.write_buffer(&slot.params, 0, params);
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&slot.found, 0, Some(4));
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.compiled);
        pass.set_bind_group(0, &slot.bindings, &[]);
        pass.dispatch_workgroups(workgroups.0, workgroups.1, workgroups.2);
        drop(pass);
        encoder.copy_buffer_to_buffer(&slot.found, 0, &slot.home, 0, slot.home.size());
        encoder.map_buffer_on_submit(&slot.home, wgpu::MapMode::Read, .., |mapped| {
            mapped.expect("the hits can be read");
        });
        slot.submitted = Some(self.queue.submit([encoder.finish()]));
    }

    /// Waits for the batch of a slot, and passes the bytes of its hits to `read`.
    pub fn wait<R>(&mut self, slot: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        let slot = &mut self.slots[slot];
        let submission_index = slot.submitted.take();
        let timeout = Some(Duration::from_secs(60));
        let wait = wgpu::PollType::Wait { submission_index, timeout };
        self.device.poll(wait).expect("a batch ends within a minute");
        let result = read(&slot.home.slice(..).get_mapped_range().expect("it is mapped"));
        slot.home.unmap();
        result
    }
}
