// What the browser adds to the InfiniteTalk nodes: linked presets that rule widgets, messages, the command in its
// node, menu commands.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { language } from "./language.js"
import { isFed, rulesOf } from "./presets.js"
import { arrange, lay, learn, savedValues } from "./screen.js"

const PRESET = "InfiniteTalkPreset"
const LOADER = "InfiniteTalkModelLoader"
const SAMPLER = "InfiniteTalkSampler"
const EXPORT = "InfiniteTalkExport"
const RULED = [LOADER, SAMPLER]
const COMMAND = "infinitetalk-command" // the widget that shows it

const OWN = "widgets_hold" // property of a saved node with a preset: its widgets' values are its own, not the preset's
const BY_LINK = "linked_widgets" // input of a queued node: widgets whose value came by a link, which the page resolved

// A ruled widget shows the preset's value and keeps its own, which is what is saved, queued and undone: what it shows
// follows from that and the graph, and needs no memory. The server lets the preset rule as well.
let presets // name -> kind of node -> widget -> value; until they are here, nothing is ruled
const own = new WeakMap() // ruled widget -> what it holds itself: value, label and how it is queued
const marked = new WeakMap() // widget that is ruled in some places only -> its label
const earlier = new WeakSet() // nodes that were saved when widgets did not keep their own values

function toast(severity, summary, detail, life = 8000) {
  app.extensionManager.toast.add({ severity, summary, detail, life })
}

const TEXTS = {
  en: {
    copied: "Command copied",
    saved: "Command saved as a file; the clipboard cannot be written here",
    failed: "No command for this graph",
    none: "There are no unfinished videos",
    unfinished: "Unfinished InfiniteTalk videos",
    clear: "They go on when their graphs are queued again. Delete them?",
    cleared: "Deleted:",
  },
  zh: {
    copied: "命令已复制",
    saved: "命令已保存为文件；此处无法写入剪贴板",
    failed: "无法为此工作流生成命令",
    none: "没有未完成的视频",
    unfinished: "未完成的 InfiniteTalk 视频",
    clear: "再次运行它们的工作流即可继续。要删除它们吗？",
    cleared: "已删除：",
  },
}

function text(name) {
  return TEXTS[language()][name]
}

function rootGraph() {
  return app.graph?.rootGraph ?? app.graph
}

function kindOf(node) {
  return node.comfyClass ?? node.type
}

// Every node with the ways to it, as ids from the outermost graph inwards; one for each place of a subgraph.
function allNodes(graph, way = [], seen = []) {
  if (!graph || seen.includes(graph)) return []
  return graph.nodes.flatMap((node) => {
    const here = [...way, node.id]
    return [{ node, way: here }, ...(node.subgraph ? allNodes(node.subgraph, here, [...seen, graph]) : [])]
  })
}

function applyPresets() {
  const root = rootGraph()
  if (!root || !presets) return
  for (const node of new Set(allNodes(root).map((each) => each.node))) {
    if (RULED.includes(kindOf(node))) applyPreset(node, root)
  }
}

function applyPreset(node, root) {
  const rules = rulesOf(node, root, (name) => presets[name]?.[kindOf(node)], PRESET)
  if (isFed(node, "quant", root)) delete rules.quant_dir // a file of one storage says nothing about another
  if (["width", "height"].some((name) => isFed(node, name, root))) delete rules.size
  const usual = earlier.delete(node) ? LiteGraph.createNode(node.type) : undefined
  for (const widget of node.widgets ?? []) {
    const values = rules[widget.name]
    if (!values) {
      release(widget)
    } else if (values.length === 1) {
      if (marked.has(widget)) release(widget)
      const before = usual?.widgets.find((each) => each.name === widget.name)
      rule(widget, values[0], before && widget.value === values[0] ? before.value : widget.value)
    } else {
      release(widget)
      mark(widget, values.map((value) => shown(value ?? widget.value)).join(" / "))
    }
  }
  lay(node)
}

function rule(widget, value, before) {
  if (!own.has(widget)) {
    own.set(widget, { value: before, label: widget.label, serializeValue: widget.serializeValue })
    widget.serializeValue = () => own.get(widget)?.value ?? widget.value
  }
  widget.value = value
  grey(widget, true)
  // the canvas hides the value of a grey widget; nodes drawn by Vue show it
  const { label } = own.get(widget)
  widget.label = LiteGraph.vueNodesMode ? label : `${label ?? widget.name}: ${shown(value)}`
}

function mark(widget, text) {
  // a widget of a subgraph that stands in several places, under presets that differ
  marked.set(widget, widget.label)
  widget.label = `${widget.label ?? widget.name} (${text})`
}

function release(widget) {
  if (marked.has(widget)) widget.label = marked.get(widget)
  marked.delete(widget)
  const before = own.get(widget)
  if (!before) return
  own.delete(widget)
  widget.label = before.label
  widget.value = before.value
  if (before.serializeValue) widget.serializeValue = before.serializeValue
  else delete widget.serializeValue
  grey(widget, false)
}

function shown(value) {
  return String(value).split("/").at(-1)
}

function after(object, name, more) {
  // call `more` after what the page or another extension does
  const before = object[name]
  object[name] = function (...given) {
    const found = before?.apply(this, given)
    return more.call(this, given, found) ?? found
  }
}

function keepOwnValues(node) {
  after(node, "onConnectionsChange", () => queueMicrotask(applyPresets))
  after(node, "onConnectInput", function ([slot], allowed) {
    // before the link is made: what copies the widget then, a subgraph or a primitive, copies its own value
    const widget = this.widgets?.find((each) => each.name === this.inputs[slot]?.widget?.name)
    if (widget && allowed !== false) release(widget)
    queueMicrotask(applyPresets)
  })
  after(node, "onSerialize", function ([saved]) {
    if (saved.widgets_values) {
      saved.widgets_values = savedValues(this, (widget) => (own.has(widget) ? own.get(widget).value : widget.value))
    }
    saved.properties = { ...saved.properties }
    delete saved.properties[OWN]
    if (hasPreset(this)) saved.properties[OWN] = "own"
  })
  after(node, "onConfigure", function ([saved]) {
    for (const widget of this.widgets ?? []) forget(widget)
    if (hasPreset(this) && !saved.properties?.[OWN]) earlier.add(this)
    speakLanguage(this)
    lay(this)
  })
  for (const widget of node.widgets ?? []) {
    after(widget, "callback", () => void (own.has(widget) && queueMicrotask(applyPresets)))
  }
}

// A template's prompt, in the language of the page. Once: what is saved from there on is the user's.
function speakLanguage(node) {
  const { prompts } = node.properties ?? {}
  if (!prompts) return
  delete node.properties.prompts
  const widget = node.widgets?.find((each) => each.name === "prompt")
  if (Object.values(prompts).includes(widget?.value)) widget.value = prompts[language()] ?? widget.value
}

function forget(widget) {
  // it has just been given its own value
  const { value } = widget
  release(widget)
  widget.value = value
}

function hasPreset(node) {
  return node.inputs?.some((each) => each.name === "preset" && each.link != null)
}

function tellLinks(output) {
  // the page puts the values of its own primitives and of subgraphs' widgets in the place of links
  for (const [id, { class_type: kind, inputs }] of Object.entries(output)) {
    if (!RULED.includes(kind) || !Array.isArray(inputs.preset)) continue
    const way = []
    let graph = rootGraph()
    let node
    for (const part of id.split(":")) {
      if (node) way.push({ node, outer: graph })
      graph = node?.subgraph ?? graph
      node = graph?.getNodeById(part)
    }
    const linked = (node?.inputs ?? [])
      .map((each) => each.name)
      .filter((name) => name in inputs && !Array.isArray(inputs[name]) && isFed(node, name, rootGraph(), way))
    if (linked.length) inputs[BY_LINK] = linked.join(" ")
  }
}

function grey(widget, on) {
  Reflect.set(widget, "disabled", on) // no error where the page decides it, as for what follows a seed
}

function forgetPreview(executionId) {
  // The finished video takes the place of the last preview, which the page would go on showing.
  let graph = rootGraph()
  const keys = []
  let node
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id)
    keys.push(locator(graph, id))
    graph = node?.subgraph
  }
  if (node?.comfyClass !== SAMPLER) return
  for (const key of keys) {
    forgetInStore(key)
    delete app.nodePreviewImages?.[key]
  }
  const picture = node.widgets?.find((each) => each.name === "$$canvas-image-preview")
  if (picture) node.widgets.splice(node.widgets.indexOf(picture), 1)
  node.imgs = undefined
}

function locator(graph, id) {
  return graph === rootGraph() ? String(id) : `${graph.id}:${id}`
}

function forgetInStore(key) {
  // The only place that touches what belongs to the page alone. Pages after 1.45 draw previews from a store of theirs,
  // for which extensions have no call; `app.nodePreviewImages` is a copy there. A page without that store, or whose
  // store lacks the function, is left alone: at worst the last preview stays beside the video.
  const page = document.getElementById("vue-app")?.__vue_app__
  const store = page?.config.globalProperties.$pinia?._s?.get("nodeOutput")
  if (typeof store?.revokePreviewsByLocatorId === "function") store.revokePreviewsByLocatorId(key)
}

function showCommand(node, command) {
  let widget = node.widgets?.find((each) => each.name === COMMAND)
  if (!widget) {
    const area = document.createElement("textarea")
    area.className = "comfy-multiline-input"
    area.readOnly = true
    const content = { getValue: () => area.value, setValue: (value) => (area.value = value) }
    widget = node.addDOMWidget(COMMAND, "text_shown", area, { ...content, serialize: false })
    widget.serialize = false // it belongs neither to what is queued nor to what is saved
  }
  widget.value = command
}

function showKeptCommands() {
  // a workflow's tab keeps what its nodes said, under the one name or the other
  for (const { node, way } of allNodes(rootGraph())) {
    if (kindOf(node) !== EXPORT) continue
    const said = app.nodeOutputs?.[locator(node.graph, node.id)] ?? app.nodeOutputs?.[way.join(":")]
    if (said?.text?.length) showCommand(node, said.text[0])
  }
}

async function exportCommand() {
  const { output, workflow } = await app.graphToPrompt()
  const answer = await api.fetchApi("/infinitetalk/export", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt: output, workflow }),
  })
  const { command, notes, file, error } = await answer.json()
  if (error) {
    toast("error", text("failed"), error, 20000)
    return
  }
  let copied = true
  try {
    await navigator.clipboard.writeText(command)
  } catch {
    copied = false // a page that came by plain HTTP from another machine has no clipboard
  }
  download(command, file)
  toast(notes.length ? "warn" : "success", text(copied ? "copied" : "saved"), [...notes, file].join("\n"), 12000)
}

function download(command, file) {
  const link = document.createElement("a")
  const mark = file.endsWith(".ps1") ? "\ufeff" : "" // without it, Windows PowerShell takes a script for ANSI
  link.href = URL.createObjectURL(new Blob([mark, command], { type: "text/plain" }))
  link.download = file
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

// %date:…% and %Node.widget% in the name of the video, as the page fills them in for nodes of its own.
function fillName(node) {
  const widget = node.widgets?.find((each) => each.name === "filename_prefix")
  const fill = window.comfyAPI?.utils?.applyTextReplacements
  if (widget && fill) widget.serializeValue = () => fill(app, widget.value)
}

async function clearUnfinished() {
  const { videos } = await (await api.fetchApi("/infinitetalk/unfinished")).json()
  if (!videos.length) return toast("info", "InfiniteTalk", text("none"))
  const sure = await app.extensionManager.dialog.confirm({
    title: text("unfinished"),
    message: text("clear"),
    type: "delete",
    itemList: videos.map((each) => each.line),
  })
  if (!sure) return
  const answer = await api.fetchApi("/infinitetalk/unfinished/clear", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ names: videos.map((each) => each.name) }),
  })
  const { gone, kept } = await answer.json()
  toast(kept.length ? "warn" : "success", `${text("cleared")} ${gone}`, kept.join("\n"))
}

function openHelp() {
  window.open(new URL(`../help.html?lang=${language()}`, import.meta.url), "_blank")
}

app.registerExtension({
  name: "infinitetalk.nodes",
  commands: [
    { id: "InfiniteTalk.ExportCommand", label: "Export InfiniteTalk command", icon: "pi pi-code", function: exportCommand },
    {
      id: "InfiniteTalk.Unfinished",
      label: "Unfinished InfiniteTalk videos",
      icon: "pi pi-trash",
      function: clearUnfinished,
    },
    { id: "InfiniteTalk.Help", label: "InfiniteTalk help", icon: "pi pi-question-circle", function: openHelp },
  ],
  menuCommands: [
    { path: ["File"], commands: ["InfiniteTalk.ExportCommand", "InfiniteTalk.Unfinished"] },
    { path: ["Help"], commands: ["InfiniteTalk.Help"] },
  ],
  async setup() {
    api.addEventListener("infinitetalk.notice", ({ detail }) => toast("warn", "InfiniteTalk", detail.text, 15000))
    api.addEventListener("executed", ({ detail }) => forgetPreview(detail.display_node ?? detail.node))
    api.addEventListener("graphChanged", applyPresets)
    const { graphToPrompt, loadGraphData } = app
    app.graphToPrompt = async function (...given) {
      applyPresets()
      const made = await graphToPrompt.apply(this, given)
      tellLinks(made.output)
      return made
    }
    app.loadGraphData = async function (...given) {
      const done = await loadGraphData.apply(this, given)
      showKeptCommands()
      return done
    }
    presets = await (await api.fetchApi("/infinitetalk/presets")).json()
    applyPresets()
  },
  beforeRegisterNodeDef: (kind, definition) => learn(definition),
  afterConfigureGraph: applyPresets,
  nodeCreated(node) {
    if (RULED.includes(node.comfyClass)) {
      arrange(node)
      keepOwnValues(node)
      lay(node)
      fillName(node)
    }
    if (node.comfyClass === EXPORT) {
      after(node, "onExecuted", function ([output]) {
        showCommand(this, output.text?.[0] ?? "")
      })
    }
    if (node.comfyClass === PRESET) {
      after(node, "onConnectionsChange", () => queueMicrotask(applyPresets))
      for (const widget of node.widgets ?? []) after(widget, "callback", () => queueMicrotask(applyPresets))
    }
  },
})
