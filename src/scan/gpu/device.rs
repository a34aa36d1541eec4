//! An open device: its compiled programs, its buffers, and its errors.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::deadlines::{POLL_INTERVAL, Timeout};
use super::error::{DeviceError, DeviceErrorSlot};
use super::faults::Faults;
use super::shader::{ENTRY_POINT, Hits, Outcome, Params, Shader, Shape, Variant};
use super::thread::catch_panic;
use crate::scan::Scan;

/// The most batches in flight.
pub(super) const SLOTS: usize = 2;

/// Leaks the handles of a device that hangs or is lost.
///
/// wgpu closes a device when its last handle is dropped. It first waits, without a deadline, until the
/// queue is idle, and panics if that fails: with such a device it would hang or panic. So one handle is
/// never dropped, and the operating system frees what it holds. A device that is out of memory is
/// closed, since that frees memory.
fn leak_if_unusable(error: &DeviceError, handles: (wgpu::Device, wgpu::Queue)) {
    if matches!(error, DeviceError::Lost(_) | DeviceError::Hung(_)) {
        std::mem::forget(handles);
    }
}

/// The buffers of one batch in flight.
struct Slot {
    params: wgpu::Buffer,
    hits: wgpu::Buffer,
    readback: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
}

/// A compiled variant.
#[derive(Clone)]
pub(super) struct Program {
    shader: Shader,
    pub(super) shape: Shape,
    pipeline: wgpu::ComputePipeline,
}

impl Program {
    pub(super) fn variant(&self) -> Variant {
        self.shader.variant()
    }

    /// How many midstates it hashes at once.
    pub(super) fn midstates(&self) -> usize {
        self.variant().midstates.count()
    }
}

/// A batch in flight.
pub(super) struct Ticket {
    slot: usize,
    submission: wgpu::SubmissionIndex,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    submitted: Instant,
    /// Its first nonce.
    first: u32,
    /// How many hashes it computes.
    hashes: u64,
}

/// An open device.
pub(super) struct Device {
    handle: wgpu::Device,
    queue: wgpu::Queue,
    pipeline_layout: wgpu::PipelineLayout,
    /// What has been compiled so far, since drivers compile slowly.
    compiled: Vec<Program>,
    slots: Vec<Slot>,
    /// The slot of the next batch.
    next: usize,
    /// When the previous batch ended, from which the next one's time counts.
    idle_since: Instant,
    errors: DeviceErrorSlot,
    faults: Faults,
}

impl Device {
    /// Opens `gpu`. The driver's callbacks report to `errors`; once an error stands there, whatever the
    /// device does next fails with it.
    ///
    /// # Errors
    /// When the device cannot be opened, or fails while its buffers are made.
    pub(super) fn open(
        gpu: &Gpu,
        errors: DeviceErrorSlot,
        faults: Faults,
    ) -> Result<Self, DeviceError> {
        let adapter = gpu.adapter();
        let offered = adapter.limits();
        let required_limits = wgpu::Limits {
            max_compute_workgroup_size_x: offered.max_compute_workgroup_size_x,
            max_compute_invocations_per_workgroup: offered.max_compute_invocations_per_workgroup,
            max_compute_workgroups_per_dimension: 65535
                .min(offered.max_compute_workgroups_per_dimension),
            ..wgpu::Limits::downlevel_defaults()
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("adit"),
            required_limits,
            // We only need a few buffers of some KiB.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let opened = catch_panic(|| pollster::block_on(adapter.request_device(&descriptor)));
        let (device, queue) = opened
            .map_err(DeviceError::Unavailable)?
            .map_err(|error| DeviceError::Unavailable(error.to_string()))?;
        let handles = (device.clone(), queue.clone());
        let set_up = catch_panic(|| Self::set_up(device, queue, errors.clone(), faults));
        let set_up = set_up.unwrap_or_else(|panic| Err(errors.first_or_lost(panic)));
        set_up.inspect_err(|error| leak_if_unusable(error, handles))
    }

    /// Installs the error callbacks, and makes the buffers and layouts that all batches use.
    fn set_up(
        device: wgpu::Device,
        queue: wgpu::Queue,
        errors: DeviceErrorSlot,
        faults: Faults,
    ) -> Result<Self, DeviceError> {
        let uncaptured = errors.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            uncaptured.report(match error {
                wgpu::Error::OutOfMemory { .. } => DeviceError::OutOfMemory,
                error => DeviceError::Refused(error.to_string()),
            });
        }));
        let lost = errors.clone();
        device.set_device_lost_callback(move |reason, message| {
            lost.report(DeviceError::Lost(format!("{message} ({reason:?})")));
        });

        let binding = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[
                binding(0, wgpu::BufferBindingType::Uniform),
                binding(1, wgpu::BufferBindingType::Storage { read_only: false }),
            ],
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let slots = (0..SLOTS).map(|_| Slot::new(&device, &layout)).collect();
        errors.check()?;
        let idle_since = Instant::now();
        Ok(Self {
            handle: device,
            queue,
            pipeline_layout,
            compiled: Vec::new(),
            slots,
            next: 0,
            idle_since,
            errors,
            faults,
        })
    }

    /// Marks the end of the self-tests, and frees the programs that were compiled for them.
    pub(super) fn mining_begins(&mut self) {
        self.compiled = Vec::new();
        self.faults.mining_begins();
    }

    /// The most invocations that a workgroup may have.
    pub(super) fn largest_workgroup(&self) -> u32 {
        let limits = self.handle.limits();
        limits.max_compute_workgroup_size_x.min(limits.max_compute_invocations_per_workgroup)
    }

    /// Makes a call in which wgpu may panic.
    fn guarded<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let result = catch_panic(|| call(self));
        let result = result.unwrap_or_else(|panic| Err(self.errors.first_or_lost(panic)));
        result.inspect_err(|error| {
            leak_if_unusable(error, (self.handle.clone(), self.queue.clone()));
        })
    }

    /// Compiles a variant, or returns the program that was compiled before.
    ///
    /// # Errors
    /// [`DeviceError::Refused`] when the driver does not compile it; others when the device fails.
    pub(super) fn compile(
        &mut self,
        variant: Variant,
        shape: Shape,
    ) -> Result<Program, DeviceError> {
        self.guarded(|device| device.compile_now(variant, shape))
    }

    fn compile_now(&mut self, variant: Variant, shape: Shape) -> Result<Program, DeviceError> {
        let same = |program: &&Program| program.variant() == variant && program.shape == shape;
        if let Some(program) = self.compiled.iter().find(same) {
            return Ok(program.clone());
        }
        self.faults.maybe_refuse(variant)?;
        let refused = |error: super::shader::Unexpandable| DeviceError::Refused(error.to_string());
        let shader = Shader::new(variant).map_err(refused)?;
        let text = shader.wgsl(shape).map_err(refused)?;
        // A driver may fail to compile one variant, even for lack of memory, and accept the next.
        let no_memory = self.handle.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let invalid = self.handle.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.handle.push_error_scope(wgpu::ErrorFilter::Internal);
        let module = self.handle.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(variant.name()),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = self.handle.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.name()),
            layout: Some(&self.pipeline_layout),
            module: &module,
            entry_point: Some(ENTRY_POINT),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let errors = [internal, invalid, no_memory].map(|scope| pollster::block_on(scope.pop()));
        self.errors.check()?;
        if let Some(error) = errors.into_iter().flatten().next() {
            return Err(DeviceError::Refused(error.to_string()));
        }
        let program = Program { shader, shape, pipeline };
        self.compiled.push(program.clone());
        Ok(program)
    }

    /// Starts a batch. At most [`SLOTS`] may be in flight; they end in the order in which they began.
    ///
    /// # Errors
    /// When the device has failed.
    pub(super) fn submit(
        &mut self,
        program: &Program,
        scan: &Scan<'_>,
    ) -> Result<Ticket, DeviceError> {
        self.guarded(|device| device.submit_now(program, scan))
    }

    fn submit_now(&mut self, program: &Program, scan: &Scan<'_>) -> Result<Ticket, DeviceError> {
        self.faults.maybe_fail(program.variant(), &self.handle, &self.errors);
        let at = self.next;
        self.next = (at + 1) % SLOTS;
        let slot = &self.slots[at];
        let params: Params = program.shader.params(scan);
        self.queue.write_buffer(&slot.params, 0, bytemuck::bytes_of(&params));
        let mut encoder =
            self.handle.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        encoder.clear_buffer(&slot.hits, 0, Some(Hits::COUNTER_SIZE));
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&program.pipeline);
            pass.set_bind_group(0, &slot.bind_group, &[]);
            let (x, y, z) = program.shape.workgroups(scan.nonces);
            pass.dispatch_workgroups(x, y, z);
        }
        encoder.copy_buffer_to_buffer(&slot.hits, 0, &slot.readback, 0, Hits::SIZE);
        let submission = self.queue.submit([encoder.finish()]);
        let (sender, mapped) = mpsc::sync_channel(1);
        slot.readback.map_async(wgpu::MapMode::Read, .., move |result| {
            // The ticket may have been dropped.
            let _ = sender.send(result);
        });
        self.errors.check()?;
        let first = scan.nonces.first();
        let hashes = scan.nonces.count() * scan.midstates.len() as u64;
        Ok(Ticket { slot: at, submission, mapped, submitted: Instant::now(), first, hashes })
    }

    /// Waits at most `limit` for the oldest batch. Returns what it found, and how long it took.
    ///
    /// # Errors
    /// When the device has failed or does not answer in time.
    pub(super) fn wait(
        &mut self,
        ticket: Ticket,
        limit: Duration,
    ) -> Result<(Outcome, Duration), DeviceError> {
        self.guarded(|device| device.wait_now(ticket, limit))
    }

    fn wait_now(
        &mut self,
        ticket: Ticket,
        limit: Duration,
    ) -> Result<(Outcome, Duration), DeviceError> {
        let Ticket { slot, submission, mapped, submitted, first, hashes } = ticket;
        let mut timeout = Timeout::new(limit);
        loop {
            let waited = self.handle.poll(wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(POLL_INTERVAL),
            });
            self.errors.check()?;
            match waited {
                Ok(_) => break,
                Err(wgpu::PollError::Timeout) => {
                    timeout.tick();
                    timeout.check()?;
                }
                Err(wgpu::PollError::WrongSubmissionIndex(..)) => {
                    return Err(DeviceError::Lost("it no longer accepts batches".to_owned()));
                }
            }
        }
        let begun = submitted.max(self.idle_since);
        self.idle_since = Instant::now();
        // The callback has run during the wait.
        match mapped.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(DeviceError::Lost(error.to_string())),
            Err(_) => return Err(DeviceError::Lost("a batch returned no result".to_owned())),
        }
        let readback = &self.slots[slot].readback;
        let outcome = match readback.get_mapped_range(..) {
            Ok(bytes) => Hits::read(&bytes),
            Err(error) => return Err(DeviceError::Lost(error.to_string())),
        };
        readback.unmap();
        self.errors.check()?;
        let truncated = || DeviceError::Lost("a batch returned a truncated result".to_owned());
        let outcome = self.faults.maybe_corrupt(outcome.ok_or_else(truncated)?, first);
        // A batch that overflows is repeated in halves; with such a count that would never end.
        if u64::from(outcome.found) > hashes {
            let found = outcome.found;
            return Err(DeviceError::WrongResult(format!(
                "reports {found} hits of {hashes} hashes"
            )));
        }
        Ok((outcome, self.idle_since - begun))
    }

    /// Runs one batch and waits at most `limit` for it; as [`Device::submit`] and [`Device::wait`].
    pub(super) fn scan(
        &mut self,
        program: &Program,
        scan: &Scan<'_>,
        limit: Duration,
    ) -> Result<(Outcome, Duration), DeviceError> {
        let ticket = self.submit(program, scan)?;
        self.wait(ticket, limit)
    }
}

impl Slot {
    fn new(device: &wgpu::Device, layout: &wgpu::BindGroupLayout) -> Self {
        use wgpu::BufferUsages as Usage;
        let buffer = |size, usage| {
            let descriptor =
                wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            device.create_buffer(&descriptor)
        };
        let params = buffer(size_of::<Params>() as u64, Usage::UNIFORM | Usage::COPY_DST);
        let hits = buffer(Hits::SIZE, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST);
        let readback = buffer(Hits::SIZE, Usage::MAP_READ | Usage::COPY_DST);
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout,
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: hits.as_entire_binding() },
            ],
        });
        Self { params, hits, readback, bind_group }
    }
}
