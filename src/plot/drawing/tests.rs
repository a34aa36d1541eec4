//! What a chart shows, and that it holds what it must.

use super::*;
use crate::plot::Bar;

fn bar(value: f64, colour: usize) -> Bar {
    Bar { value, low: value * 0.9, high: value * 1.05, colour }
}

fn chart(rows: &[(&str, &str, f64)]) -> Chart {
    let rows = rows.iter().map(|(group, label, value)| Row {
        group: (*group).to_owned(),
        label: (*label).to_owned(),
        bars: vec![bar(*value, 0)],
        remark: String::new(),
    });
    Chart {
        title: "A <machine> & more".into(),
        remarks: vec!["with a remark".into()],
        legend: vec![(0, "one version".into())],
        rows: rows.collect(),
    }
}

#[test]
fn a_drawing_says_all_that_it_must() {
    let svg = chart(&[("sha2", "1 thread", 11e6), ("avx2", "1 thread", 15e6)]).svg().unwrap();
    for text in [
        "A &lt;machine&gt; &amp; more",
        "with a remark",
        "one version",
        "sha2",
        "15.00 MH/s",
        "MH/s",
    ] {
        assert!(svg.contains(text), "{text} is not in {svg}");
    }
    assert!(!svg.contains("logarithmic"));
    // The longer bar is the faster.
    assert_eq!(svg.matches("#0072B2").count(), 3, "two bars and the legend: {svg}");
}

#[test]
fn a_picture_is_a_png_of_its_size() {
    let chart = chart(&[("sha2", "1 thread", 11e6)]);
    let file = chart.png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (2_000, chart.height() * 2));
    let has = |colour: [u8; 3]| pixels.chunks_exact(3).any(|pixel| pixel == colour);
    assert!(has([0, 114, 178]) && has([255, 255, 255]));
}

#[test]
fn wide_ranges_are_logarithmic_and_say_so() {
    let svg = chart(&[("sha2", "", 11e6), ("gpu", "", 9.1e9)]).svg().unwrap();
    assert!(svg.contains("hash rate in GH/s, logarithmic scale"), "{svg}");
    let axis = Axis::of(&chart(&[("a", "", 11e6), ("b", "", 9.1e9)]).rows);
    let ticks: Vec<_> = axis.ticks().iter().map(|tick| axis.number(*tick)).collect();
    assert_eq!(ticks, ["0.001", "0.01", "0.1", "1"]);
    assert!(axis.place(11e6) > 0.1 && axis.place(9.1e9) < 1.0);
}

#[test]
fn steps_are_round() {
    for (highest, wanted) in [
        (163e6, vec!["0", "50", "100", "150"]),
        (9.9e9, vec!["0", "2", "4", "6", "8", "10"]),
        (800.0, vec!["0", "200", "400", "600", "800"]),
    ] {
        let axis = Axis::of(&chart(&[("a", "", highest)]).rows);
        let ticks: Vec<_> = axis.ticks().iter().map(|tick| axis.number(*tick)).collect();
        assert_eq!(ticks, wanted);
    }
}

#[test]
fn whatever_is_to_be_shown_it_is_drawn() {
    let long = "x".repeat(5_000);
    for rows in [
        vec![],
        vec![("a", "b", 0.0)],
        vec![("a", "b", f64::NAN), ("a", "c", f64::INFINITY)],
        vec![(long.as_str(), long.as_str(), 1e300), ("\u{7f}\n\u{1f600}", "", -1.0)],
    ] {
        let mut chart = chart(&rows);
        chart.title.clone_from(&long);
        assert!(chart.svg().unwrap().ends_with("</svg>\n"));
        assert!(chart.png().unwrap().starts_with(b"\x89PNG"));
    }
}
