// The language that the page speaks: English, or Chinese.
import { app } from "../../../scripts/app.js"

export function language() {
  return app.extensionManager?.setting.get("Comfy.Locale")?.startsWith("zh") ? "zh" : "en"
}
