"""Draws people: layer over layer of anti-aliased shapes, many frames at once, on any device.

A shape is a field of signed distances (negative inside) in units of half the picture's side; the picture
is the layers painted from the back to the front. Knows people and poses as dictionaries of numbers
(``people.people``, ``motion``), nothing of speech.
"""

from __future__ import annotations

import torch

from .people import BALD, BOB, BUN, CURLY, LONG, PARTED, SHORT, Person

Pose = dict[str, torch.Tensor]  # each [people, frames]

MOUTH_DARK, TEETH, TONGUE = (0.2, 0.04, 0.06), (0.96, 0.95, 0.92), (0.8, 0.36, 0.38)
_EYE_WHITE, _PUPIL, _LASH = (0.98, 0.98, 0.97), (0.04, 0.03, 0.04), (0.1, 0.07, 0.07)


def draw(person: Person, pose: Pose, side: int) -> torch.Tensor:
    """Frames [people, frames, 3, side, side] in [-1, 1], float32."""
    count, frames = pose["opening"].shape
    who = {name: _per_frame(value, frames) for name, value in person.items()}
    now = {name: value.reshape(-1, 1, 1) for name, value in pose.items()}
    scene = _Scene(who, now, side)
    _background(scene)
    _hair_behind(scene)
    _body(scene)
    _ears(scene)
    _head(scene)
    _cheeks_and_nose(scene)
    _beard(scene)
    _mouth(scene)
    _eyes(scene)
    _hair_before(scene)
    _brows(scene)
    _glasses(scene)
    return (scene.picture * 2 - 1).unflatten(0, (count, frames))


def _per_frame(value: torch.Tensor, frames: int) -> torch.Tensor:
    repeated = value.repeat_interleave(frames, dim=0)
    return repeated.view(-1, 1, 1) if value.dim() == 1 else repeated.view(-1, 3, 1, 1)


def head_point(person: Person, pose: Pose, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a point of the head, in its own units, is in the picture: x and y in [-1, 1], each [people, frames]."""
    x0, y0 = person["x"][:, None] + pose["x"], person["y"][:, None] + pose["y"]
    cos, sin, scale = pose["roll"].cos(), pose["roll"].sin(), person["scale"][:, None]
    return x0 + scale * (u * cos - v * sin), y0 + scale * (u * sin + v * cos)


class _Scene:
    """A picture in the making, and the coordinates of its pixels: of the picture (x, y) and of the head (u, v)."""

    def __init__(self, who: Person, now: Pose, side: int) -> None:
        self.who, self.now = who, now
        steps = (torch.arange(side, device=who["x"].device) + 0.5) * (2 / side) - 1
        self.pixel = 2.2 / side  # the edge of a shape is a little wider than a pixel
        self.x, self.y = steps.view(1, 1, side), steps.view(1, side, 1)
        x, y = self.x - who["x"] - now["x"], self.y - who["y"] - now["y"]
        cos, sin = now["roll"].cos(), now["roll"].sin()
        self.u, self.v = (x * cos + y * sin) / who["scale"], (y * cos - x * sin) / who["scale"]
        self.face_u = self.u - 0.1 * now["yaw"]  # what is in front of the head moves more when it turns
        self.picture = torch.zeros(len(who["x"]), 3, side, side, device=who["x"].device)

    def cover(self, distance: torch.Tensor, softness: float = 1.0) -> torch.Tensor:
        """How much of each pixel a shape covers; distances of the picture."""
        return (0.5 - distance / (self.pixel * softness)).clamp(0, 1)

    def cover_head(self, distance: torch.Tensor, softness: float = 1.0) -> torch.Tensor:
        """The same with distances in units of the head."""
        return self.cover(distance * self.who["scale"], softness)

    def paint(self, cover: torch.Tensor, colour: torch.Tensor | tuple[float, float, float]) -> None:
        if isinstance(colour, tuple):  # filled in, since torch.tensor would wait for the device
            colour = torch.cat([cover.new_full((1, 1, 1, 1), value) for value in colour], dim=1)
        self.picture += cover.unsqueeze(1) * (colour - self.picture)


def _ellipse(x: torch.Tensor, y: torch.Tensor, rx: torch.Tensor | float, ry: torch.Tensor | float) -> torch.Tensor:
    """Distance to an ellipse around the origin, right near its edge."""
    px, py = x / rx, y / ry
    length = (px * px + py * py).sqrt().clamp_min(1e-4)
    slope = ((px / rx) ** 2 + (py / ry) ** 2).sqrt().clamp_min(1e-4)
    return length * (length - 1) / slope


def _box(x: torch.Tensor, y: torch.Tensor, rx: torch.Tensor | float, ry: torch.Tensor | float) -> torch.Tensor:
    return torch.maximum(x.abs() - rx, y.abs() - ry)


def _background(s: _Scene) -> None:
    who = s.who
    turn = who["background_turn"]
    along = (0.5 + 0.4 * (s.x * turn.cos() + s.y * turn.sin())).unsqueeze(1).clamp(0, 1)
    s.picture = who["paper"] + along * (who["paper_end"] - who["paper"])
    x, y, kind = s.x - who["background_x"], s.y - who["background_y"], who["background"]
    lighter = who["paper_end"] * 0.55 + 0.4
    disc = s.cover(_ellipse(x, y, 0.62, 0.62))
    window = s.cover(_box(x, y, 0.42, 0.5)) * (1 - s.cover(_box(x, y, 0.025, 9.0))) * (1 - s.cover(y.abs() - 0.025))
    stripes = s.cover(((s.x * turn.cos() + s.y * turn.sin()) * 3).remainder(1.0).sub(0.5).abs().sub(0.22) / 3)
    wall = s.cover(0.35 + 0.2 * who["background_x"] - s.y)
    for number, cover in enumerate((disc, window, stripes, wall)):
        s.paint(cover * (kind == number) * (0.4 if number == 2 else 0.75), lighter)


def _hair_behind(s: _Scene) -> None:
    who, width = s.who, s.who["head_width"]
    fall = torch.maximum(_box(s.u, s.v - 0.55, width + 0.1, 1.0), -_ellipse(s.u, s.v + 9, 20, 7.9))
    long = torch.minimum(_ellipse(s.u, s.v + 0.12, width + 0.16, 1.05), fall)
    bob = torch.minimum(_ellipse(s.u, s.v + 0.12, width + 0.17, 1.04), _box(s.u, s.v - 0.3, width + 0.14, 0.42) - 0.03)
    angle = torch.atan2(s.u, s.v)
    curly = _ellipse(s.u, s.v + 0.22, width + 0.3, 1.12) - 0.035 * (angle * 13).cos()
    bun = _ellipse(s.u, s.v + 1.18, 0.3, 0.27)
    for style, shape in ((LONG, long), (BOB, bob), (CURLY, curly), (BUN, bun)):
        s.paint(s.cover_head(shape) * (who["style"] == style), who["hair"] * 0.8)


def _body(s: _Scene) -> None:
    who, now = s.who, s.now
    x, y = s.x - who["x"] - 0.35 * now["x"], s.y - who["y"] - 0.25 * now["y"] - now["breath"]
    scale = who["scale"]
    neck = _box(x - 0.25 * now["x"], y - scale * 1.05, scale * 0.34, scale * 0.6)
    s.paint(s.cover(neck), who["skin"] * 0.86)
    shade = _ellipse(x - 0.6 * now["x"], y - scale * 0.86, scale * 0.5, scale * 0.36)
    s.paint(s.cover(torch.maximum(neck, shade), 3.0) * 0.5, who["skin"] * 0.62)
    shoulders = _ellipse(x, y - scale * 2.38, scale * 1.6, scale * 1.2)
    collar = _ellipse(x, y - scale * 1.16, scale * 0.46, scale * 0.24)
    opening = torch.where(
        who["neckline"] == 1, torch.maximum(x.abs() * 1.4 + (y - scale * 1.72), -(y - scale * 1.0)), collar
    )
    dressed = torch.maximum(shoulders, -opening)
    s.paint(s.cover(shoulders), who["skin"] * 0.9)
    s.paint(s.cover(dressed), who["clothes"])
    stripes = (y / scale * 4).remainder(1.0).sub(0.5).abs().sub(0.22) * scale / 4
    s.paint(s.cover(torch.maximum(dressed, stripes)) * who["stripes"], who["clothes"] * 0.5 + 0.45)
    edge = torch.maximum(shoulders, opening.abs() - scale * 0.055)
    s.paint(s.cover(edge) * (who["neckline"] < 2), who["collar"])


def _ears(s: _Scene) -> None:
    who = s.who
    side = s.u.sign()
    out = (s.u + 0.06 * s.now["yaw"]).abs() - who["head_width"] * 0.99
    ear = _ellipse(out, s.v - 0.08, who["ear"], who["ear"] * 1.45)
    s.paint(s.cover_head(ear), who["skin"] * 0.92)
    inner = _ellipse(out - 0.01, s.v - 0.09, who["ear"] * 0.5, who["ear"] * 0.85)
    s.paint(s.cover_head(inner, 2.0) * 0.7, who["skin"] * 0.7)
    ring = _ellipse(out - 0.02, s.v - 0.36, 0.055, 0.055)
    s.paint(s.cover_head(ring) * who["earring"] * (side != 0), (0.95, 0.8, 0.35))


def _head_shape(s: _Scene, grow: float = 0.0) -> torch.Tensor:
    """The outline: an ellipse, narrower towards the chin, which drops as the mouth opens."""
    v = torch.where(s.v > 0, s.v / (1 + 0.12 * s.now["opening"]), s.v)
    narrow = 1 - s.who["chin"] * v.clamp(0, 1).square()
    return _ellipse(s.u / narrow, v, s.who["head_width"] + grow, 1.0 + grow)


def _head(s: _Scene) -> None:
    who = s.who
    cover = s.cover_head(_head_shape(s))
    light = 1 + 0.1 * (s.u * who["light"]).clamp(-1, 1) - 0.06 * s.v
    s.paint(cover, (who["skin"] * light.unsqueeze(1)).clamp(0, 1))


def _cheeks_and_nose(s: _Scene) -> None:
    who = s.who
    lift = 0.05 * s.now["smile"]
    cheek = _ellipse(s.face_u.abs() - 0.45, s.v - 0.3 + lift, 0.2, 0.15)
    s.paint(
        s.cover_head(cheek, 14.0) * (who["blush"] + 0.2 * s.now["smile"].clamp(0, 1)),
        who["skin"] * 0.6 + who["lips"] * 0.4,
    )
    tip = s.face_u - 0.03 * s.now["yaw"]
    bridge = torch.maximum(
        (tip + 0.03 - 0.12 * (s.v - who["nose_y"])).abs() - 0.018, (s.v - who["nose_y"] + 0.14).abs() - 0.14
    )
    s.paint(s.cover_head(bridge, 2.0) * 0.55, who["skin"] * 0.78)
    s.paint(s.cover_head(_ellipse(tip, s.v - who["nose_y"], who["nose"], who["nose"] * 0.62), 1.5), who["skin"] * 0.8)
    shine = _ellipse(tip - 0.01, s.v - who["nose_y"] + 0.035, who["nose"] * 0.7, who["nose"] * 0.4)
    s.paint(s.cover_head(shine, 3.0), (who["skin"] * 1.04).clamp(0, 1))


def _mouth_lines(s: _Scene) -> tuple[torch.Tensor, ...]:
    """Across the mouth from -1 to 1, its half width, its profile, and the upper and lower edge of the gap."""
    who, now = s.who, s.now
    half = who["mouth_width"] * (0.84 + 0.3 * now["width"] + 0.14 * now["smile"].clamp(0, 1)) * (1 - 0.1 * now["round"])
    across = s.face_u / half
    profile = (1 - across.square()).clamp(min=0).pow(0.6)
    centre = who["mouth_y"] - now["smile"] * 0.11 * (across.square().clamp(max=1.5) - 0.35)
    gap = 0.42 * now["opening"] * profile
    return across, half, profile, centre - 0.25 * gap, centre + 0.75 * gap


def _mouth(s: _Scene) -> None:
    who = s.who
    across, half, profile, top, bottom = _mouth_lines(s)
    inside_width = (across.abs() - 1) * half
    dip = 1 - 0.35 * torch.exp(-((across * 5) ** 2))
    lips = torch.maximum(
        torch.maximum(top - who["lip"] * profile * dip - s.v, s.v - bottom - 1.25 * who["lip"] * profile), inside_width
    )
    s.paint(s.cover_head(lips), who["lips"])
    lower = torch.maximum(
        _ellipse(s.face_u, s.v - bottom - 0.6 * who["lip"], half * 0.5, who["lip"] * 0.4), inside_width
    )
    s.paint(s.cover_head(lower, 3.0) * 0.35, (who["lips"] * 1.25).clamp(0, 1))
    gap = torch.maximum(torch.maximum(top - s.v, s.v - bottom), inside_width)
    inside = s.cover_head(gap) * (s.now["opening"] * 12).clamp(0, 1)
    s.paint(inside, MOUTH_DARK)
    tongue = _ellipse(
        s.face_u, s.v - who["mouth_y"] - 0.42 * 0.75 * s.now["opening"], half * 0.6, 0.04 + 0.13 * s.now["opening"]
    )
    s.paint(inside * s.cover_head(tongue), TONGUE)
    teeth = s.v - top - 0.075 * profile
    s.paint(inside * s.cover_head(teeth) * (s.now["opening"] * 8 - 0.4).clamp(0, 1), TEETH)
    line = torch.maximum((s.v - (top + bottom) / 2).abs() - 0.012, inside_width)
    s.paint(s.cover_head(line) * (1 - s.now["opening"] * 10).clamp(0, 1), who["lips"] * 0.45)


def _beard(s: _Scene) -> None:
    who = s.who
    chin = torch.maximum(_head_shape(s, 0.03), 0.28 + 0.5 * (0.5 - s.face_u.abs()).clamp(min=0) - s.v)
    s.paint(s.cover_head(chin) * who["beard"], who["beard_colour"])
    up = who["mouth_y"] - 0.105 - 0.02 * s.now["smile"]
    moustache = _ellipse(s.face_u, s.v - up - 0.25 * s.face_u.square(), who["mouth_width"] * 1.05, 0.075)
    s.paint(s.cover_head(moustache) * who["moustache"], who["beard_colour"])


def _eyes(s: _Scene) -> None:
    who, now = s.who, s.now
    side = torch.where(s.face_u < 0, -1.0, 1.0)
    eu, ev = s.face_u - side * who["eye_x"], s.v - who["eye_y"]
    height = who["eye_height"] * now["eyes"].clamp(min=0.001)
    lift = 0.04 * now["smile"].clamp(0, 1)  # cheeks push the lower lid
    lash = _ellipse(eu, ev + who["lashes"] * 0.7, who["eye_width"] + 0.012, height + who["lashes"] * 0.8)
    s.paint(s.cover_head(lash), _LASH)
    white = torch.maximum(_ellipse(eu, ev, who["eye_width"], height), ev - height + lift)
    open_ = s.cover_head(white) * (now["eyes"] * 6).clamp(0, 1)
    s.paint(open_, _EYE_WHITE)
    iu, iv = eu - 0.075 * now["gaze_x"], ev - 0.04 * now["gaze_y"]
    s.paint(open_ * s.cover_head(_ellipse(iu, iv, 0.085, 0.085)), who["iris"])
    s.paint(open_ * s.cover_head(_ellipse(iu, iv, 0.042, 0.042)), _PUPIL)
    s.paint(open_ * s.cover_head(_ellipse(iu - 0.03, iv + 0.03, 0.02, 0.02)), (1.0, 1.0, 1.0))


def _brows(s: _Scene) -> None:
    who, now = s.who, s.now
    out = s.face_u.abs() - who["eye_x"]
    height = who["eye_y"] - who["brow_y"] - 0.1 * now["brows"]
    curve = height + who["brow_arch"] * out.square() + (0.28 * now["sorrow"] + 0.05) * out
    thick = who["brow_thick"] * (1 - 0.35 * (out / who["brow_length"]).clamp(-1, 1))
    s.paint(s.cover_head(_box(out, s.v - curve, who["brow_length"], thick)), who["brow"])


def _hair_before(s: _Scene) -> None:
    who = s.who
    cap = _head_shape(s, 0.07)
    u = s.u - 0.06 * s.now["yaw"]
    line = who["hairline"] + who["fringe"] * u.square() * 0.5
    parted = who["hairline"] - 0.12 + 0.45 * (u - who["parting"]).abs()
    style = who["style"]
    line = torch.where((style == PARTED) | (style == LONG), parted, line)
    temples = torch.where(u.abs() > who["head_width"] * 0.86, 0.05 - s.v, torch.full_like(u, -9.0))
    sides = torch.where((style == SHORT) | (style == PARTED) | (style == CURLY), 1.0, 0.0)
    edge = torch.where((temples > 0) & (sides > 0), -temples, s.v - line)
    hair = torch.maximum(cap, edge)
    shown = s.cover_head(hair) * (style != BALD)
    s.paint(shown, who["hair"])
    gleam = _ellipse(u - 0.25 * who["light"], s.v + 0.82, 0.4, 0.07)
    s.paint(torch.minimum(shown, s.cover_head(gleam, 6.0)) * 0.4, (who["hair"] * 1.3 + 0.08).clamp(0, 1))


def _glasses(s: _Scene) -> None:
    who = s.who
    eu, ev = s.face_u.abs() - who["eye_x"], s.v - who["eye_y"]
    ring = torch.where(who["round_glasses"] > 0, _ellipse(eu, ev, 0.24, 0.22), _box(eu, ev, 0.22, 0.15) - 0.03)
    rim = ring.abs() - 0.022
    bridge = torch.maximum((ev + 0.03).abs() - 0.02, s.face_u.abs() - (who["eye_x"] - 0.22))
    temple = torch.maximum((ev + 0.04).abs() - 0.02, (s.face_u.abs() - 0.7).abs() - (0.7 - who["eye_x"] - 0.22))
    temple = torch.maximum(temple, s.u.abs() - who["head_width"])
    s.paint(s.cover_head(ring) * who["glasses"] * 0.12, (1.0, 1.0, 1.0))
    s.paint(s.cover_head(torch.minimum(torch.minimum(rim, bridge), temple)) * who["glasses"], who["frame"])
