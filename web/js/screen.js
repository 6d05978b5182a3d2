// How the widgets of a node stand on the screen: in the order in which people choose, with switches for what may be left
// out, and sides for a size of one's own. What is saved and queued keeps the order and the values that the server has.
import { language } from "./language.js"

const OWN_SIZE = "width x height"
const SIZES = { "infinitetalk-480": "480, as the picture", "infinitetalk-720": "720, as the picture" }
const SIDES = ["width", "height"]
const CONTROL = "control_after_generate"
const GAP = 4 // pixels between widgets
const ADVANCED = 1000 // before all that are shown on demand
const SWITCH = "switch " // begins the names of switches, which belong to the page alone

// widgets that may be left out -> what their switch says, and what the widget holds when it is first switched on
const SWITCHES = {
  max_frame_num: { en: "limit length", zh: "限制长度", first: 250 },
  sample_steps: { en: "set steps", zh: "指定步数", first: 40 },
  sample_shift: { en: "set shift", zh: "指定 shift", first: 7 },
  sample_audio_guide_steps: { en: "limit audio cfg steps", zh: "限制语音引导步数", first: 4 },
  blocks_to_swap: { en: "swap blocks", zh: "交换块", first: 20 },
  num_persistent_param_in_dit: { en: "limit resident parameters", zh: "限制常驻参数", first: 0 },
  vram_limit: { en: "limit VRAM", zh: "限制显存", first: 12 },
}
const MORE = "switch more" // the name of the button that shows the rest
const MORE_TEXTS = { en: ["show advanced", "hide advanced"], zh: ["显示高级参数", "隐藏高级参数"] }
const STATES = { en: { on: "on", off: "auto" }, zh: { on: "开", off: "自动" } }

const specifications = {} // kind of node -> widget -> what the server says of it
const savedNames = new WeakMap() // node -> names of its widgets in the order in which they are saved

export function learn({ name, input }) {
  const all = { ...input?.required, ...input?.optional }
  specifications[name] = Object.fromEntries(Object.entries(all).map(([id, [, options]]) => [id, options ?? {}]))
}

// Bring a new node's widgets into order.
export function arrange(node) {
  const known = specifications[kindOf(node)] ?? {}
  const saved = (node.widgets ?? []).map((each) => each.name)
  savedNames.set(node, saved)
  for (const name of saved) if (known[name]?.unset !== undefined && SWITCHES[name]) addSwitch(node, name, known[name].unset)
  for (const widget of node.widgets ?? []) if (known[widget.name]?.advanced) widget.advanced = true // the canvas looks here
  if (node.widgets?.some((each) => each.advanced)) addMore(node)
  const place = ({ name }) => {
    if (name === MORE) return Infinity
    if (name === CONTROL) return place({ name: saved[saved.indexOf(CONTROL) - 1] }) + 0.5
    const of = name.startsWith(SWITCH) ? name.slice(SWITCH.length) : name
    const { place: given } = known[of] ?? {}
    return (given ?? ADVANCED + saved.indexOf(of)) - (of === name ? 0 : 0.5)
  }
  node.widgets?.sort((a, b) => place(a) - place(b))
  const { configure } = node
  node.configure = function (info) {
    return configure.call(this, withOrder(this, info))
  }
  for (const name of ["size", ...saved]) listen(node, name)
}

function listen(node, name) {
  const widget = find(node, name)
  if (!widget) return
  const { callback } = widget
  widget.callback = function (...given) {
    const found = callback?.apply(this, given)
    if (name === "size") takeText(node, widget)
    lay(node)
    return found
  }
}

function find(node, name) {
  return node.widgets?.find((each) => each.name === name)
}

function kindOf(node) {
  return node.comfyClass ?? node.type
}

function addSwitch(node, name, unset) {
  const texts = SWITCHES[name]
  const widget = node.addWidget(
    "toggle",
    SWITCH + name,
    false,
    (on) => {
      const number = find(node, name)
      if (on === (number.value !== unset)) return
      if (!on) widget.last = number.value
      number.value = on ? (widget.last ?? texts.first) : unset
      number.callback?.(number.value)
      fit(node)
    },
    { ...STATES[language()], serialize: false },
  )
  widget.label = texts[language()]
  widget.serialize = false
  widget.of = { name, unset }
  if (specifications[kindOf(node)][name].advanced) widget.advanced = widget.options.advanced = true
}

// On the canvas; nodes drawn by Vue have such a button of the page's own.
function addMore(node) {
  const widget = node.addWidget("button", MORE, null, () => {
    node.showAdvanced = !node.showAdvanced
    lay(node)
    fit(node, true)
  })
  widget.serialize = false
  widget.options = { ...widget.options, serialize: false, canvasOnly: true }
}

function fit(node, exactly) {
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), exactly ? height : Math.max(node.size[1], height)])
}

// Show what counts: a number whose switch is on, the sides of a size of one's own, and whatever is linked.
export function lay(node) {
  const isLinked = (name) => node.inputs?.some((each) => each.widget?.name === name && each.link != null)
  const size = find(node, "size")
  const off = new Set(size && size.value !== OWN_SIZE ? SIDES.filter((name) => !isLinked(name)) : [])
  for (const widget of node.widgets ?? []) {
    if (!widget.of) continue
    const number = find(node, widget.of.name)
    const linked = isLinked(number.name)
    const on = linked || number.value !== widget.of.unset
    if (widget.value !== on) widget.value = on
    if (!on) off.add(number.name)
    Reflect.set(widget, "disabled", Boolean(linked || number.disabled))
  }
  // what is advanced is folded away: on the canvas here, in nodes drawn by Vue by the page itself
  const folded = !LiteGraph.vueNodesMode && !node.showAdvanced
  for (const widget of node.widgets ?? []) {
    if (widget.name === MORE) widget.label = MORE_TEXTS[language()][node.showAdvanced ? 1 : 0]
    const gone = off.has(widget.name)
    const hidden = gone || Boolean(folded && widget.advanced && !isLinked(widget.name))
    if (Boolean(widget.hidden) !== hidden) {
      widget.hidden = hidden
      if (hidden) widget.computeSize = () => [0, -GAP] // pages before 1.40 keep room for what is hidden
      else delete widget.computeSize
    }
    if (widget.options && Boolean(widget.options.hidden) !== gone) widget.options.hidden = gone
  }
  node.setDirtyCanvas?.(true, true)
}

// A size as earlier versions had it, a text, becomes the word for it or two sides.
function takeText(node, widget) {
  const sides = sidesOf(widget.value)
  if (SIZES[widget.value]) widget.value = SIZES[widget.value]
  if (!sides || !SIDES.every((name) => find(node, name))) return
  widget.value = OWN_SIZE
  for (const [index, name] of SIDES.entries()) find(node, name).value = sides[index]
}

function sidesOf(text) {
  return /^\s*(\d+)x(\d+)\s*$/i.exec(text)?.slice(1, 3).map(Number)
}

// Saved values in the order of the screen.
function withOrder(node, info) {
  const values = info.widgets_values
  if (!Array.isArray(values)) return info
  const names = savedNames.get(node)
  const held = Object.fromEntries(names.map((name, index) => [name, values[index]]))
  const sides = sidesOf(held.size)
  if (sides && names.includes("width")) Object.assign(held, { size: OWN_SIZE, width: sides[0], height: sides[1] })
  else if (SIZES[held.size]) held.size = SIZES[held.size]
  const shown = node.widgets.filter((each) => each.serialize !== false)
  return { ...info, widgets_values: shown.map((each) => held[each.name] ?? each.value) }
}

// What is saved: the values in the order that they have always had.
export function savedValues(node, valueOf) {
  const names = savedNames.get(node)
  const others = node.widgets.filter((each) => each.serialize !== false && !names.includes(each.name))
  return [...names.map((name) => find(node, name)), ...others].map((each) => (each ? (valueOf(each) ?? null) : null))
}
