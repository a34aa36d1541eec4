//! Widths and shapes of letters, from a font that is in the program: a picture looks the same
//! wherever it is drawn. Its licence is beside it, in `src/plot/font/LICENSE`.

use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, Glyph, ScaleFont as _, point};

/// plotters' font size is this many times the em size that is usual elsewhere.
pub(super) const PLOTTERS_EM: f64 = 1.24;

static REGULAR: LazyLock<Option<FontRef<'static>>> =
    LazyLock::new(|| FontRef::try_from_slice(include_bytes!("../font/DejaVuSans.ttf")).ok());
static BOLD: LazyLock<Option<FontRef<'static>>> =
    LazyLock::new(|| FontRef::try_from_slice(include_bytes!("../font/DejaVuSans-Bold.ttf")).ok());

/// The font, and what it calls the height of a line whose letters are `size` pixels to the em.
fn font(size: f64, bold: bool) -> Option<(&'static FontRef<'static>, f32)> {
    let font = if bold { BOLD.as_ref() } else { REGULAR.as_ref() }?;
    let em = font.units_per_em()?;
    Some((font, size as f32 * font.height_unscaled() / em))
}

/// How wide a text is, in pixels, at `size` pixels to the em.
pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let Some((font, height)) = font(size, bold) else { return 0.0 };
    let font = font.as_scaled(height);
    text.chars().map(|c| f64::from(font.h_advance(font.glyph_id(c)))).sum()
}

/// Covers each pixel of a text by how much of it is ink, 0 to 1. The text begins at `x`, and its
/// small letters have their middle at `y`.
pub(super) fn draw(
    text: &str,
    size: f64,
    bold: bool,
    (x, y): (f64, f64),
    mut cover: impl FnMut(i32, i32, f32),
) {
    let Some((font, height)) = font(size, bold) else { return };
    let scaled = font.as_scaled(height);
    // Half the height of an x.
    let x_height =
        scaled.outline_glyph(glyph(&scaled, 'x')).map_or(0.0, |x| x.px_bounds().height());
    let baseline = y as f32 + x_height / 2.0;
    let mut at = x as f32;
    for c in text.chars() {
        let mut glyph = glyph(&scaled, c);
        glyph.position = point(at, baseline);
        at += scaled.h_advance(glyph.id);
        if let Some(outline) = scaled.outline_glyph(glyph) {
            let bounds = outline.px_bounds();
            outline.draw(|x, y, ink| {
                let (x, y) =
                    (bounds.min.x as i32 + x.cast_signed(), bounds.min.y as i32 + y.cast_signed());
                cover(x, y, ink);
            });
        }
    }
}

fn glyph(font: &impl ab_glyph::ScaleFont<&'static FontRef<'static>>, c: char) -> Glyph {
    font.scaled_glyph(c)
}
