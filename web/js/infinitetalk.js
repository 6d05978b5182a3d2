// What the browser adds to the InfiniteTalk nodes: linked presets that rule widgets, messages, menu commands.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { presetOf } from "./presets.js"

const PRESET = "InfiniteTalkPreset"
const RULED = ["InfiniteTalkModelLoader", "InfiniteTalkSampler"]

let presets = {}

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
  const name = presetOf(node, root, PRESET)
  const values = presets[name]?.[node.comfyClass ?? node.type] ?? {}
  const before = node.infinitetalkRuled ?? {}
  if (before.lora && !name) toast("info", "InfiniteTalk", `${text("lora")} ${before.lora}`)
  for (const widget of node.widgets ?? []) {
    const ruled = widget.name in values || (widget.name === "control_after_generate" && "base_seed" in values)
    if (ruled) {
      widget.value = widget.name === "control_after_generate" ? "fixed" : values[widget.name]
      widget.disabled = true
    } else if (before.widgets?.includes(widget.name)) {
      widget.disabled = false
    }
  }
  const widgets = (node.widgets ?? []).filter((widget) => widget.disabled).map((widget) => widget.name)
  node.infinitetalkRuled = name ? { widgets, lora: node.type === RULED[0] ? presets[name]?.lora : undefined } : {}
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
  name: "InfiniteTalk",
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
