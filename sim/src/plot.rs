//! A simulation's timeline as a picture (SVG): load and throttles, slots and what held them, environments and instances.

use plotters::prelude::*;

use crate::SimError;
use crate::summary::Summary;

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 220;
const TITLE_HEIGHT: u32 = 32;

type Line<'a> = (&'a str, RGBColor, Vec<f64>);

/// The picture of one simulation.
pub fn svg(summary: &Summary) -> Result<String, SimError> {
    let timeline = &summary.timeline;
    let interval = timeline.interval_seconds.max(1) as f64;
    let rate = |counts: &[u64]| counts.iter().map(|count| *count as f64 / interval).collect();
    let many = |counts: &[u32]| counts.iter().map(|count| f64::from(*count)).collect();
    let panels: [(&str, Vec<Line>); 3] = [
        (
            "invocations a second",
            vec![("arrivals", BLUE, rate(&timeline.arrivals)), ("throttled", RED, rate(&timeline.throttles))],
        ),
        (
            "slots",
            vec![("slots", BLACK, many(&timeline.slots)), ("in flight", BLUE, many(&timeline.in_flight))],
        ),
        (
            "capacity",
            vec![
                ("environments ready", BLACK, many(&timeline.environments_ready)),
                ("starting", RGBColor(200, 120, 0), many(&timeline.environments_starting)),
                ("instances", RGBColor(0, 130, 80), many(&timeline.instances)),
            ],
        ),
    ];
    let mut out = String::new();
    {
        let height = TITLE_HEIGHT + PANEL_HEIGHT * u32::try_from(panels.len()).unwrap_or(3);
        let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        let drawn = draw(&area, summary, interval, &panels);
        drawn.map_err(|error| SimError::Impossible(format!("the plot can't be drawn: {error}")))?;
    }
    Ok(out)
}

/// The points of a line without those in the middle of a level stretch, which nobody sees.
fn turns(values: &[f64]) -> impl Iterator<Item = (usize, f64)> {
    let is_same = |one: f64, other: f64| (one - other).abs() < f64::EPSILON;
    let is_level = move |at: usize| {
        let before = at.checked_sub(1).and_then(|before| values.get(before));
        let around = before.zip(values.get(at + 1));
        around.is_some_and(|(before, after)| is_same(*before, *after) && is_same(*before, values[at]))
    };
    values.iter().copied().enumerate().filter(move |(at, _)| !is_level(*at))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(area: &Area<'_>, summary: &Summary, interval: f64, panels: &[(&str, Vec<Line>)]) -> Drawn {
    area.fill(&WHITE)?;
    let title = format!("{} (seed {})", summary.scenario, summary.seed);
    let area = area.titled(&title, ("sans-serif", 20))?;
    let (unit, unit_seconds) =
        if summary.duration_seconds > 7_200 { ("hours", 3_600.0) } else { ("minutes", 60.0) };
    for (area, (name, lines)) in area.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let highest = lines.iter().flat_map(|(_, _, values)| values).copied().fold(1.0, f64::max);
        let length = lines.iter().map(|(_, _, values)| values.len()).max().unwrap_or(1).max(1) as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..length * interval / unit_seconds, 0.0..highest * 1.1)?;
        chart.configure_mesh().x_desc(unit).y_desc(*name).light_line_style(WHITE).draw()?;
        for (label, colour, values) in lines {
            let points = turns(values).map(|(at, value)| (at as f64 * interval / unit_seconds, value));
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points, &colour))?
                .label(*label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    area.present()?;
    Ok(())
}
