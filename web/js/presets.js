// Which preset rules a node: follows the link of its "preset" input through reroutes and subgraphs.
const SUBGRAPH_INPUT = -10
const MUTED = [2, 4] // never, bypassed

function linkOf(graph, id) {
  return id == null ? undefined : (graph.links.get?.(id) ?? graph.links[id])
}

function parentOf(graph, root) {
  // the node that stands for this subgraph, and the graph that it is in
  const graphs = [root]
  const seen = new Set()
  while (graphs.length) {
    const outer = graphs.pop()
    if (seen.has(outer)) continue
    seen.add(outer)
    for (const node of outer.nodes) {
      if (node.subgraph === graph) return { node, outer }
      if (node.subgraph) graphs.push(node.subgraph)
    }
  }
  return undefined
}

function originOf(graph, link, root) {
  // the node and the output that a link really comes from
  for (let hops = 0; link && hops < 100; hops++) {
    if (link.origin_id === SUBGRAPH_INPUT) {
      const parent = parentOf(graph, root)
      if (!parent) return undefined
      graph = parent.outer
      link = linkOf(graph, parent.node.inputs[link.origin_slot]?.link)
      continue
    }
    const node = graph.getNodeById(link.origin_id)
    if (!node || MUTED.includes(node.mode)) return undefined
    if (node.subgraph) {
      const inner = node.subgraph.outputs[link.origin_slot]
      graph = node.subgraph
      link = linkOf(graph, inner?.linkIds?.[0])
      continue
    }
    if (node.type === "Reroute") {
      link = linkOf(graph, node.inputs[0]?.link)
      continue
    }
    return node
  }
  return undefined
}

export function presetOf(node, root, type) {
  const input = node.inputs?.find((each) => each.name === "preset")
  const origin = originOf(node.graph ?? root, linkOf(node.graph ?? root, input?.link), root)
  if (!origin || (origin.comfyClass ?? origin.type) !== type) return undefined
  return origin.widgets?.find((each) => each.name === "preset")?.value
}
