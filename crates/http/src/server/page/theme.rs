//! The colours of a page, for light and for dark, checked so that they can be read.

use std::fmt::Write as _;

/// The colours of a page in one scheme: `#rgb` or `#rrggbb`. What is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Colors {
    /// Buttons, and what has the focus.
    pub accent: Option<String>,
    /// Behind everything.
    pub background: Option<String>,
    /// The sheet that everything stands on.
    pub surface: Option<String>,
    /// The text.
    pub text: Option<String>,
}

impl Colors {
    /// The page's own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this colour for buttons, and for what has the focus.
    #[must_use]
    pub fn accent(mut self, color: impl Into<String>) -> Self {
        self.accent = Some(color.into());
        self
    }
}

/// Why colours cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
#[non_exhaustive]
pub struct InvalidColor {
    /// Which: `accent`, `background`, `surface` or `text`.
    pub name: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Colours of one scheme, complete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scheme {
    accent: Rgb,
    background: Rgb,
    surface: Rgb,
    text: Rgb,
    bad: Rgb,
    bad_tint: Rgb,
}

pub(super) const LIGHT: Scheme = Scheme {
    accent: Rgb(0x25, 0x54, 0xe0),
    background: Rgb(0xf5, 0xf6, 0xf8),
    surface: Rgb(0xff, 0xff, 0xff),
    text: Rgb(0x14, 0x18, 0x1f),
    bad: Rgb(0x9b, 0x1c, 0x1c),
    bad_tint: Rgb(0xfd, 0xec, 0xec),
};

pub(super) const DARK: Scheme = Scheme {
    accent: Rgb(0x8f, 0xb0, 0xff),
    background: Rgb(0x0e, 0x11, 0x16),
    surface: Rgb(0x18, 0x1c, 0x23),
    text: Rgb(0xec, 0xef, 0xf4),
    bad: Rgb(0xff, 0xb4, 0xab),
    bad_tint: Rgb(0x3a, 0x1d, 0x1d),
};

impl Scheme {
    /// These colours with `colors` in their places.
    ///
    /// # Errors
    /// Every colour that is none, and every pair that cannot be told apart.
    pub(super) fn with(mut self, colors: &Colors) -> Result<Self, Vec<InvalidColor>> {
        let mut wrong = Vec::new();
        let places = [
            ("accent", &colors.accent, &mut self.accent),
            ("background", &colors.background, &mut self.background),
            ("surface", &colors.surface, &mut self.surface),
            ("text", &colors.text, &mut self.text),
        ];
        for (name, given, place) in places {
            match given.as_deref().map(|text| (text, Rgb::parse(text))) {
                None => {}
                Some((_, Some(color))) => *place = color,
                Some((text, None)) => wrong.push(InvalidColor {
                    name,
                    problem: format!("`{text}` is no colour; give one such as \"#2554e0\""),
                }),
            }
        }
        let pairs = [
            ("text", self.text, "surface", self.surface, 4.5),
            ("text", self.text, "background", self.background, 4.5),
            ("accent", self.accent, "surface", self.surface, 3.0),
        ];
        for (name, color, other, behind, least) in pairs {
            let contrast = color.contrast(behind);
            if contrast < least {
                let problem = format!(
                    "{color} on the {other} {behind} has a contrast of {contrast:.1}; people need \
                     {least} at least: make one of the two darker or lighter"
                );
                wrong.push(InvalidColor { name, problem });
            }
        }
        match wrong.is_empty() {
            true => Ok(self),
            false => Err(wrong),
        }
    }

    /// The custom properties that the page's style is made of.
    pub(super) fn properties(&self) -> String {
        let on_accent = match self.accent.contrast(WHITE) >= self.accent.contrast(BLACK) {
            true => WHITE,
            false => BLACK,
        };
        let mix = |part| self.text.over(self.surface, part);
        // What stands out is lighter than what is around it.
        let raised = match self.surface.luminance() > 0.4 {
            true => self.surface,
            false => mix(0.18),
        };
        let mut css = String::with_capacity(320);
        for (name, color) in [
            ("accent", self.accent),
            ("on-accent", on_accent),
            ("background", self.background),
            ("surface", self.surface),
            ("text", self.text),
            ("muted", mix(0.72)),
            ("border", mix(0.12)),
            ("line", mix(0.55)),
            ("tint", mix(0.06)),
            ("raised", raised),
            ("bad", self.bad),
            ("bad-tint", self.bad_tint),
        ] {
            // Writing to a string does not fail.
            let _ = write!(css, "--{name}:{color};");
        }
        css
    }
}

const WHITE: Rgb = Rgb(255, 255, 255);
const BLACK: Rgb = Rgb(10, 14, 20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rgb(u8, u8, u8);

impl std::fmt::Display for Rgb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

impl Rgb {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        let digits: Vec<u8> = digits
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        match digits[..] {
            [r, g, b] => Some(Self(r * 17, g * 17, b * 17)),
            [r1, r0, g1, g0, b1, b0] => Some(Self(r1 * 16 + r0, g1 * 16 + g0, b1 * 16 + b0)),
            _ => None,
        }
    }

    fn map(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 255 by construction"
        )]
        let mixed = |a: u8, b: u8| f(f64::from(a), f64::from(b)).round().clamp(0.0, 255.0) as u8;
        Self(
            mixed(self.0, other.0),
            mixed(self.1, other.1),
            mixed(self.2, other.2),
        )
    }

    /// `part` of this colour on another.
    fn over(self, behind: Self, part: f64) -> Self {
        self.map(behind, |a, b| a * part + b * (1.0 - part))
    }

    /// Relative luminance (WCAG 2).
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            match c <= 0.04045 {
                true => c / 12.92,
                false => ((c + 0.055) / 1.055).powf(2.4),
            }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// The contrast of two colours (WCAG 2): 1 to 21.
    fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: what the page is made of can be read, in both schemes.
    #[test]
    fn the_own_colours_can_be_read() {
        for scheme in [LIGHT, DARK] {
            assert!(scheme.with(&Colors::default()).is_ok());
            assert!(scheme.bad.contrast(scheme.bad_tint) >= 4.5);
            let muted = scheme.text.over(scheme.surface, 0.72);
            assert!(muted.contrast(scheme.text.over(scheme.surface, 0.06)) >= 4.5);
            assert!(
                scheme
                    .text
                    .over(scheme.surface, 0.55)
                    .contrast(scheme.surface)
                    >= 3.0
            );
        }
        assert!((Rgb(0, 0, 0).contrast(WHITE) - 21.0).abs() < 0.01);
    }

    /// Protects: an operator hears of a colour that nobody could read, and why.
    #[test]
    fn colours_are_checked() {
        let colors = Colors {
            accent: Some("blue".into()),
            text: Some("#ccc".into()),
            ..Colors::default()
        };
        let wrong = LIGHT.with(&colors).unwrap_err();
        let names: Vec<_> = wrong.iter().map(|w| w.name).collect();
        assert_eq!(names, ["accent", "text", "text"]);
        assert!(wrong[1].problem.contains("contrast of 1.6"), "{}", wrong[1]);
        let ours = LIGHT.with(&Colors::new().accent("#FFD400"));
        assert_eq!(ours.unwrap_err()[0].name, "accent", "yellow on white");
        let dark = DARK.with(&Colors::new().accent("#fd0")).unwrap();
        assert!(
            dark.properties()
                .contains("--accent:#ffdd00;--on-accent:#0a0e14;")
        );
    }
}
