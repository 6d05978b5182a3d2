// What the browser adds to the InfiniteTalk nodes: linked presets that rule widgets, messages, the command in its
// node, menu commands.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { presetOf } from "./presets.js"

const PRESET = "InfiniteTalkPreset"
const LOADER = "InfiniteTalkModelLoader"
const SAMPLER = "InfiniteTalkSampler"
const EXPORT = "InfiniteTalkExport"
const RULED = [LOADER, SAMPLER]
const COMMAND = "infinitetalk-command" // the widget that shows it

let presets = {}
const ruled = new WeakMap() // widget that a preset rules -> its own label

function toast(severity, summary, detail, life = 8000) {
  app.extensionManager.toast.add({ severity, summary, detail, life })
}

function language() {
  return app.extensionManager.setting.get("Comfy.Locale")?.startsWith("zh") ? "zh" : "en"
}

const TEXTS = {
  en: {
    copied: "Command copied",
    saved: "Command saved as a file; the clipboard cannot be written here",
    failed: "No command for this graph",
    lora: "The preset's LoRA went with it: link a LoRA node with",
  },
  zh: {
    copied: "命令已复制",
    saved: "命令已保存为文件；此处无法写入剪贴板",
    failed: "无法为此工作流生成命令",
    lora: "预设的 LoRA 已随之移除，请连接 LoRA 节点：",
  },
}

function text(name) {
  return TEXTS[language()][name]
}

function allNodes(graph, seen = new Set()) {
  if (!graph || seen.has(graph)) return []
  seen.add(graph)
  return graph.nodes.flatMap((node) => [node, ...(node.subgraph ? allNodes(node.subgraph, seen) : [])])
}

function applyPresets() {
  const root = app.graph?.rootGraph ?? app.graph
  if (!root) return
  for (const node of allNodes(root)) {
    if (RULED.includes(node.comfyClass ?? node.type)) applyPreset(node, root)
  }
}

function applyPreset(node, root) {
  const kind = node.comfyClass ?? node.type
  const name = presetOf(node, root, PRESET)
  const values = { ...presets[name]?.[kind] }
  if ("base_seed" in values) values.control_after_generate = "fixed"
  const lora = kind === LOADER && name ? presets[name]?.lora : undefined
  if (node.infinitetalkLora && !name) toast("info", "InfiniteTalk", `${text("lora")} ${node.infinitetalkLora}`)
  node.infinitetalkLora = lora
  for (const widget of node.widgets ?? []) {
    if (widget.name in values) rule(widget, values[widget.name])
    else if (ruled.has(widget)) release(widget)
  }
}

function rule(widget, value) {
  if (!ruled.has(widget)) ruled.set(widget, widget.label)
  widget.value = value
  grey(widget, true)
  // the canvas hides the value of a grey widget; nodes drawn by Vue show it
  const label = ruled.get(widget)
  widget.label = LiteGraph.vueNodesMode ? label : `${label ?? widget.name}: ${String(value).split("/").at(-1)}`
}

function release(widget) {
  widget.label = ruled.get(widget)
  ruled.delete(widget)
  grey(widget, false)
}

function grey(widget, on) {
  Reflect.set(widget, "disabled", on) // no error where the page decides it, as for what follows a seed
}

function forgetPreview(executionId) {
  // The finished video takes the place of the last preview, which the page would go on showing.
  let graph = app.graph?.rootGraph ?? app.graph
  const keys = []
  let node
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id)
    keys.push(graph === (app.graph?.rootGraph ?? app.graph) ? id : `${graph.id}:${id}`)
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

function openHelp() {
  window.open(new URL(`../help.html?lang=${language()}`, import.meta.url), "_blank")
}

app.registerExtension({
  name: "infinitetalk.nodes",
  commands: [
    { id: "InfiniteTalk.ExportCommand", label: "Export InfiniteTalk command", icon: "pi pi-code", function: exportCommand },
    { id: "InfiniteTalk.Help", label: "InfiniteTalk help", icon: "pi pi-question-circle", function: openHelp },
  ],
  menuCommands: [
    { path: ["File"], commands: ["InfiniteTalk.ExportCommand"] },
    { path: ["Help"], commands: ["InfiniteTalk.Help"] },
  ],
  async setup() {
    api.addEventListener("infinitetalk.notice", ({ detail }) => toast("warn", "InfiniteTalk", detail.text, 15000))
    api.addEventListener("executed", ({ detail }) => forgetPreview(detail.display_node ?? detail.node))
    api.addEventListener("graphChanged", applyPresets)
    presets = await (await api.fetchApi("/infinitetalk/presets")).json()
    applyPresets()
  },
  afterConfigureGraph: applyPresets,
  nodeCreated(node) {
    if (RULED.includes(node.comfyClass)) {
      const connected = node.onConnectionsChange
      node.onConnectionsChange = function (...changes) {
        connected?.apply(this, changes)
        queueMicrotask(applyPresets)
      }
    }
    if (node.comfyClass === EXPORT) {
      const executed = node.onExecuted
      node.onExecuted = function (output) {
        executed?.call(this, output)
        showCommand(this, output.text?.[0] ?? "")
      }
    }
    if (node.comfyClass === PRESET) {
      const widget = node.widgets?.find((each) => each.name === "preset")
      const changed = widget?.callback
      if (widget) {
        widget.callback = function (...values) {
          changed?.apply(this, values)
          queueMicrotask(applyPresets)
        }
      }
    }
  },
})
