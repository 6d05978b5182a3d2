"""What a user may do with presets in ComfyUI's page, move by move, and what every widget has to show after it.

``Play`` makes random moves on a page and keeps its own account of them: what each widget holds itself, what is linked,
which preset is chosen, and all of that for every state that can be undone. Knows no test.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ...pipeline.graphs.widgets import LOADER, NUMBERS, SEED, widget_value
from ...pipeline.settings.presets import load_preset, preset_names
from .browser import Page

PRESETS = ("preset", "other")
CHOICES: dict[str, tuple] = {  # what a user sets widgets to
    **{"sample_steps": (3, 6, 40), "sample_shift": (1.5, 9.0), "max_frame_num": (0, 500), "use_apg": (False, True)},
    **{"use_teacache": (False, True), "base_seed": (7, 42, 2**40), "crf": (10, 30), "t5_cpu": (False, True)},
    **{
        "sample_text_guide_scale": (1.0, 4.5),
        "color_correction_strength": (0.0, 0.5),
        "size": ("480, as the picture", "720, as the picture"),
    },
    **{"offload_model": ("auto", "false"), "vae_dtype": ("auto", "fp32")},
}
FED = {"sample_steps": (5, 12, 21), "sample_shift": (2.5, 8.5), "base_seed": (11, 99), "max_frame_num": (100, 200)}
UNCHANGING = ("undo", "redo", "tabs")  # moves that are none to be undone
FEEDERS = {"sample_steps": "PrimitiveInt", "sample_shift": "PrimitiveFloat", "base_seed": "PrimitiveInt"}

HELPERS = """
(() => {
  const all = (graph) => graph.nodes.flatMap((node) => [node, ...(node.subgraph ? all(node.subgraph) : [])])
  const root = () => app.graph.rootGraph ?? app.graph
  const tracker = () => app.extensionManager.workflow.activeWorkflow.changeTracker
  const settle = async () => { for (let i = 0; i < 3; i++) await new Promise((done) => setTimeout(done)) }
  const play = (window.play = {
    of: (title) => all(root()).find((node) => node.title === title),
    widget: (title, name) => play.of(title).widgets.find((each) => each.name === name),
    add(kind, title) {
      const node = LiteGraph.createNode(kind)
      node.title = title
      app.graph.add(node)
      return node
    },
    prepare(presets, two) {
      const [loader, first] = ["ModelLoader", "Sampler"].map((kind) => {
        return app.graph.nodes.find((node) => node.type === `InfiniteTalk${kind}`)
      })
      loader.title = "loader"
      first.title = "first"
      for (const title of presets) play.add("InfiniteTalkPreset", title)
      if (!two) return
      const second = play.add("InfiniteTalkSampler", "second")
      for (const name of ["model", "speech", "image"]) {
        const slot = first.inputs.findIndex((input) => input.name === name)
        const link = app.graph.getLink(first.inputs[slot].link)
        app.graph.getNodeById(link.origin_id).connect(link.origin_slot, second, slot)
      }
    },
    link(from, slot, to, name) {
      const [a, b] = [play.of(from), play.of(to)]
      a.connect(slot, b, b.inputs.findIndex((input) => input.name === name))
    },
    unlink(title, name) {
      const node = play.of(title)
      node.disconnectInput(node.inputs.findIndex((input) => input.name === name))
    },
    set(title, name, value) {
      const widget = play.widget(title, name)
      widget.value = value
      widget.callback?.(value)
    },
    async feed(kind, value, title, name) {
      const feeder = play.add(kind, `${title} ${name}`)
      play.link(feeder.title, 0, title, name)
      feeder.widgets[0].value = value
      feeder.widgets[0].callback?.(value)
      await app.graphToPrompt()
    },
    remove: (title) => app.graph.remove(play.of(title)),
    outside: (...titles) => titles.every((title) => play.of(title)?.graph === root()),
    fold: (...titles) => void app.graph.convertToSubgraph(new Set(titles.map(play.of))),
    unfold() {
      for (const node of root().nodes.filter((each) => each.subgraph)) app.graph.unpackSubgraph(node)
    },
    async reload() { await app.loadGraphData(JSON.parse(JSON.stringify(root().serialize()))) },
    async tabs() {
      const mine = app.extensionManager.workflow.activeWorkflow.path
      await app.extensionManager.command.execute("Comfy.NewBlankWorkflow")
      do {
        await settle()
        await app.extensionManager.command.execute("Workspace.PreviousOpenedWorkflow")
      } while (app.extensionManager.workflow.activeWorkflow.path !== mine)
    },
    undo: () => tracker().undo(),
    redo: () => tracker().redo(),
    async done(check) {
      await settle()
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
      // the page itself finds another order of nodes after an undo, and takes that for a change
      if (check) tracker().checkState()
      await settle()
      const saved = (node) => JSON.stringify([node.id, node.widgets_values, node.properties])
      const [last, now] = [tracker().activeState, root().serialize()].map((state) => state.nodes.map(saved))
      const changed = [...last.filter((each) => !now.includes(each)), ...now.filter((each) => !last.includes(each))]
      return [tracker().undoQueue.length, tracker().redoQueue.length, changed]
    },
    shown(title) {
      return Object.fromEntries(play.of(title).widgets.map((each) => [each.name, [each.value, Boolean(each.disabled)]]))
    },
  })
})()
"""


@dataclass
class State:
    """What the user has made of the graph.

    Attributes:
        own: what each widget holds itself, by node and name.
        presets: what each preset node says.
        ruled: the preset node that is linked to a node, if any.
        muted: preset nodes that are.
        fed: values that come by a link, and the kind of node that gives them, by node and name.
        folded: whether some nodes are in a subgraph.
    """

    own: dict[str, dict[str, object]]
    presets: dict[str, str]
    ruled: dict[str, str | None]
    muted: set[str] = field(default_factory=set)
    fed: dict[tuple[str, str], tuple[object, str]] = field(default_factory=dict)
    folded: bool = False

    def preset(self, node: str) -> str | None:
        """The name of the preset that rules a node."""
        linked = self.ruled[node]
        return None if linked is None or linked in self.muted else self.presets[linked]

    def shown(self, node: str) -> dict[str, tuple[object, bool]]:
        """What each widget shows, and whether a preset rules it; one that is fed by a link shows its own value."""
        names = LOADER if node == "loader" else NUMBERS
        name = self.preset(node)
        rules = {} if name is None else load_preset(name).settings
        found = {}
        for widget in names:
            if widget in rules and widget != SEED and (node, widget) not in self.fed:
                found[widget] = widget_value(widget, rules[widget]), True
            else:
                found[widget] = self.own[node][widget], False
        return found

    def counting(self, node: str) -> dict[str, object]:
        """The value that counts, of each widget."""
        shown = {name: value for name, (value, _) in self.shown(node).items()}
        return shown | {name: value for (owner, name), (value, _) in self.fed.items() if owner == node}


class Play:
    """Random moves on a page that shows one or two samplers, of which each is compared with an account of its own."""

    def __init__(self, page: Page, workflow: str, seed: int, two: bool | None = None) -> None:
        self.page = page
        self.random = random.Random(seed)
        self.moves: list[str] = []
        page.run(f"app.loadGraphData({workflow})")
        page.run(HELPERS)
        self.two = self.random.random() < 0.5 if two is None else two
        self.do(f"play.prepare({json.dumps(PRESETS)}, {json.dumps(self.two)})")
        own = {node: {name: value for name, (value, _) in self.read(node).items()} for node in self.nodes}
        self.state = State(own, dict.fromkeys(PRESETS, preset_names()[0]), dict.fromkeys(self.nodes))
        self.past: list[State] = []
        self.future: list[State] = []
        self.reset()

    @property
    def nodes(self) -> tuple[str, ...]:
        return ("loader", "first", "second") if self.two else ("loader", "first")

    def do(self, script: str, check: bool = True) -> tuple[int, int]:
        """Do something on the page; returns how many states can be undone and redone.

        Args:
            check: let the page look for changes, as it does after each key and click.

        Raises:
            AssertionError: the page has a state of nodes that is not the one that it took for the last.
        """
        done = self.page.run(f"(async () => {{ await ({script}); return play.done({int(check)}) }})()")
        undone, redone, changed = done
        assert not changed, f"nodes have changed by themselves: {changed} after\n{self.told()}"
        return undone, redone

    def read(self, node: str) -> dict[str, tuple[object, bool]]:
        names = LOADER if node == "loader" else NUMBERS
        shown = self.page.run(f"play.shown('{node}')")
        return {name: tuple(shown[name]) for name in names}

    def reset(self) -> None:
        """Begin a history: what came before cannot be undone any more, or is not looked at."""
        self.past, self.future = [], []
        self.before = self.do("0")[0]

    def move(self) -> None:
        """One random move that is possible."""
        while True:
            name, make = self.random.choice(self._all_moves())
            before = copy.deepcopy(self.state)
            script = make()
            if script is None:
                self.state = before
                continue
            self.moves.append(f"{name}: {script}")
            undone, redone = self.do(script, name not in UNCHANGING)
            if name == "reload":
                self.before = undone
                self.past, self.future = [], []
            elif name not in UNCHANGING:
                self.past.append(before)
                self.future = []
            count = undone - self.before, redone
            assert count == (len(self.past), len(self.future)), f"{count} states to undo and redo after\n{self.told()}"
            return

    def told(self) -> str:
        return "\n".join(self.moves)

    def _all_moves(self) -> list[tuple[str, Callable[[], str | None]]]:
        often = [("choose", self._choose), ("link", self._link), ("set", self._set)]
        often += [("undo", self._undo), ("redo", self._redo)]
        seldom = [("unlink", self._unlink), ("mute", self._mute), ("feed", self._feed), ("starve", self._starve)]
        seldom += [("fold", self._fold), ("unfold", self._unfold)]
        return [*often, *often, *often, *seldom, *seldom, ("reload", self._reload), ("tabs", self._tabs)]

    def _choose(self) -> str | None:
        title = self.random.choice(PRESETS)
        name = self.random.choice([name for name in preset_names() if name != self.state.presets[title]])
        self.state.presets[title] = name
        return f"play.set('{title}', 'preset', '{name}')"

    def _link(self) -> str | None:
        node, title = self.random.choice(self.nodes), self.random.choice(("preset", "preset", "preset", "other"))
        if self.state.ruled[node] == title or not self._together(node, title):
            return None
        self.state.ruled[node] = title
        return f"play.link('{title}', 0, '{node}', 'preset')"

    def _unlink(self) -> str | None:
        node = self.random.choice(self.nodes)
        if self.state.ruled[node] is None:
            return None
        self.state.ruled[node] = None
        return f"play.unlink('{node}', 'preset')"

    def _mute(self) -> str | None:
        title = self.random.choice(PRESETS)
        self.state.muted ^= {title}
        return f"(play.of('{title}').mode = {2 if title in self.state.muted else 0}, app.graphToPrompt())"

    def _set(self) -> str | None:
        node = self.random.choice(self.nodes)
        name = self.random.choice([name for name in CHOICES if name in self.state.own[node]])
        values = [value for value in CHOICES[name] if value != self.state.own[node][name]]
        if self.state.shown(node)[name][1] or (node, name) in self.state.fed:
            return None
        self.state.own[node][name] = value = self.random.choice(values)
        return f"play.set('{node}', '{name}', {json.dumps(value)})"

    def _feed(self) -> str | None:
        node, name = self.random.choice(self.nodes[1:]), self.random.choice(list(FED))
        if (node, name) in self.state.fed or not self._together(node, "preset"):
            return None
        kind = self.random.choice(["PrimitiveNode", FEEDERS.get(name, "PrimitiveNode")])
        value = self.random.choice(FED[name])
        self.state.fed[node, name] = value, kind
        if kind == "PrimitiveNode":
            self.state.own[node][name] = value  # the page writes it into the widget, and it stays there
        return f"play.feed('{kind}', {value}, '{node}', '{name}')"

    def _starve(self) -> str | None:
        fed = [key for key in self.state.fed if self._together(f"{key[0]} {key[1]}")]
        if not fed:
            return None
        node, name = self.random.choice(fed)
        del self.state.fed[node, name]
        return f"play.remove('{node} {name}')"

    def _fold(self) -> str | None:
        if self.state.folded:
            return None
        groups = [["loader"], ["first"], ["loader", "first"], ["preset", "loader"], ["preset", "other", *self.nodes]]
        group = self.random.choice(groups)
        # the page cannot make a prompt of a subgraph with one of its own primitives in it
        givers = {f"{node} {name}": kind for (node, name), (_, kind) in self.state.fed.items() if node in group}
        group = [*group, *(giver for giver, kind in givers.items() if kind != "PrimitiveNode")]
        self.state.folded = True
        return f"play.fold({', '.join(map(repr, group))})"

    def _unfold(self) -> str | None:
        if not self.state.folded:
            return None
        self.state.folded = False
        return "play.unfold()"

    def _undo(self) -> str | None:
        if not self.past:
            return None
        self.future.append(self.state)
        self.state = self.past.pop()
        return "play.undo()"

    def _redo(self) -> str | None:
        if not self.future:
            return None
        self.past.append(self.state)
        self.state = self.future.pop()
        return "play.redo()"

    def _reload(self) -> str | None:
        return "play.reload()"

    def _tabs(self) -> str | None:
        return "play.tabs()"

    def _together(self, *titles: str) -> bool:
        """Whether the nodes are in the outermost graph."""
        return bool(self.page.run(f"play.outside({', '.join(map(repr, titles))})"))
