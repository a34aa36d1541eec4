//! Keeps a graphics driver from complaining of a desktop that is not there.

/// Mesa's Vulkan layer asks the Wayland compositor which card is to come first. Where there is no
/// desktop (in a container, under cron, as root over ssh), the library that it asks by writes
/// `error: XDG_RUNTIME_DIR is invalid or not set in the environment.` straight to stderr, in the form
/// of our own errors. Nothing but the environment keeps it from that, and a process that has loaded
/// libraries cannot change its own safely. So the program begins again, as the same process, with a
/// `WAYLAND_DISPLAY` that says what is so. To be called before anything else is done; it comes back
/// where there is nothing to mend, and where the system does not let it.
#[cfg(all(unix, not(target_os = "macos")))]
pub fn say_that_there_is_none() {
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;

    // A path below what is no directory never exists. libwayland looks for XDG_RUNTIME_DIR only where
    // the display's name is no absolute path.
    const NONE: &str = "/dev/null/no-desktop";
    let is_absolute =
        |name: &str| std::env::var_os(name).is_some_and(|path| Path::new(&path).is_absolute());
    if is_absolute("XDG_RUNTIME_DIR") || is_absolute("WAYLAND_DISPLAY") {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It gives an error, or does not come back. Then a line too many is no reason not to go on.
    let _ = again.args(arguments).env("WAYLAND_DISPLAY", NONE).exec();
}

/// Elsewhere no driver looks for one.
#[cfg(not(all(unix, not(target_os = "macos"))))]
pub fn say_that_there_is_none() {}
