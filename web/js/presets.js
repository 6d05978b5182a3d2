// What rules a node's widgets: walks links as the page does when it makes a prompt, and changes nothing.
const SUBGRAPH_INPUT = -10
const MUTED = 2
const BYPASSED = 4
const MOST_HOPS = 200

function linkOf(graph, id) {
  return id == null ? undefined : (graph.links.get?.(id) ?? graph.links[id])
}

function nodesFor(graph, root) {
  // the nodes that stand for this subgraph, each with the graph that it is in
  const found = []
  const ahead = [root]
  const seen = new Set()
  while (ahead.length) {
    const outer = ahead.pop()
    if (seen.has(outer)) continue
    seen.add(outer)
    for (const node of outer.nodes) {
      if (node.subgraph === graph) found.push({ node, outer })
      if (node.subgraph) ahead.push(node.subgraph)
    }
  }
  return found
}

function passedInput(node, slot, type) {
  // the input whose value a bypassed node hands on
  const inputs = node.inputs ?? []
  if (type === "*" || type === "") return inputs[slot] ?? inputs[0]
  const fits = (input) => input && (input.type === type || input.type === "*")
  return fits(inputs[slot]) ? inputs[slot] : inputs.find((input) => input.type === type)
}

// What feeds an input: `{ node }`, `{ widget }` of a subgraph, or undefined; one for each place where the input's
// graph stands, unless `way` says which (nodes that stand for graphs, each with the graph that it is in, outermost first).
export function sourcesOf(graph, input, root, way = [], hops = 0) {
  return follow(graph, linkOf(graph, input?.link), input?.type, root, way, hops)
}

function follow(graph, link, type, root, way, hops) {
  if (!link || hops > MOST_HOPS) return [undefined]
  const before = (graph, input, way) => {
    return follow(graph, linkOf(graph, input?.link), type, root, way, hops + 1)
  }
  if (link.origin_id === SUBGRAPH_INPUT) {
    const places = way.length ? [way.at(-1)] : nodesFor(graph, root)
    return places.flatMap(({ node, outer }) => {
      const input = node.inputs[link.origin_slot]
      if (input?.link != null) return before(outer, input, way.slice(0, -1))
      const widget = input && (node.getWidgetFromSlot?.(input) ?? input._widget)
      return [widget && { widget }]
    })
  }
  const node = graph.getNodeById(link.origin_id)
  if (!node) return [undefined]
  if (node.applyToGraph) return [{ node }] // writes its value into widgets itself
  if (node.mode === MUTED) return [undefined]
  if (node.mode === BYPASSED) return before(graph, passedInput(node, link.origin_slot, type), way)
  if (node.subgraph) {
    const inner = linkOf(node.subgraph, node.subgraph.outputs[link.origin_slot]?.linkIds?.[0])
    return follow(node.subgraph, inner, type, root, [...way, { node, outer: graph }], hops + 1)
  }
  if (node.isVirtualNode) return follow(graph, node.getInputLink?.(link.origin_slot), type, root, way, hops + 1)
  return [{ node }]
}

function inputOf(node, name) {
  return node.inputs?.find((each) => each.name === name)
}

export function isFed(node, name, root, way = []) {
  return sourcesOf(node.graph ?? root, inputOf(node, name), root, way).some((source) => source !== undefined)
}

function chosen(node, root) {
  // what a preset node's widget says, or what feeds it
  const [source] = sourcesOf(node.graph ?? root, inputOf(node, "preset"), root)
  if (source?.widget) return source.widget.value
  const held = source?.node.applyToGraph ? source.node.widgets?.[0] : undefined
  return (held ?? node.widgets?.find((each) => each.name === "preset"))?.value
}

// What a linked preset makes of a node's widgets, by name: a list of different values, one only unless the node is in
// a subgraph that stands in several places, and undefined in it for a place where the widget is free. A widget that
// is fed by a link is not ruled, and neither is one that no preset names.
export function rulesOf(node, root, valuesOf, type) {
  const places = sourcesOf(node.graph ?? root, inputOf(node, "preset"), root)
  const given = places.map((source) => {
    const isPreset = source?.node && (source.node.comfyClass ?? source.node.type) === type
    return (isPreset && valuesOf(chosen(source.node, root))) || {}
  })
  const names = new Set(given.flatMap(Object.keys))
  return Object.fromEntries(
    [...names]
      .filter((name) => !isFed(node, name, root))
      .map((name) => [name, [...new Set(given.map((values) => values[name]))]]),
  )
}
