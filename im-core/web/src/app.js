// Opens Converse on the server this page came from: language and colours by the browser, the domain by what the
// server says. Nothing is loaded from anywhere else.
import converse from './@CONVERSE@/converse.min.js';

const texts = {
  en: {
    title: 'Chat',
    failed: 'The chat cannot be opened: the server does not answer. Try again in a moment.',
  },
  zh: {
    title: '聊天',
    failed: '无法打开聊天：服务器没有应答，请稍后重试。',
  },
};

const wanted = navigator.languages?.find((l) => /^(zh|en)\b/i.test(l)) ?? 'en';
const chinese = /^zh/i.test(wanted);
const traditional = /^zh-(tw|hk|mo|hant)/i.test(wanted);
const text = chinese ? texts.zh : texts.en;

document.documentElement.lang = chinese ? (traditional ? 'zh-TW' : 'zh-CN') : 'en';
document.title = text.title;

// The sign-in page carries this deployment's name, and nothing that points or loads from outside. Converse leaves
// elements alone that are defined already.
function replaceBranding(domain) {
  const empty = () => class extends HTMLElement {};
  for (const name of ['converse-footer', 'converse-bg']) customElements.define(name, empty());
  customElements.define('converse-brand-logo', class extends HTMLElement {
    connectedCallback() {
      const heading = document.createElement('h1');
      heading.className = 'site';
      const name = document.createElement('small');
      name.textContent = domain;
      heading.append(text.title, name);
      this.replaceChildren(heading);
    }
  });
}

async function start() {
  const answer = await fetch('/client.json', { cache: 'no-store' });
  if (!answer.ok) throw new Error(`client.json: ${answer.status}`);
  const { domain, registration } = await answer.json();
  replaceBranding(domain);
  await converse.initialize({
    allow_non_roster_messaging: true,
    allow_registration: registration,
    allow_url_history_change: false,
    archived_messages_page_size: 50,
    assets_path: new URL('@CONVERSE@', document.baseURI).pathname,
    auto_away: 600,
    auto_reconnect: true,
    blacklisted_plugins: ['converse-omemo'],
    clear_cache_on_logout: true,
    dark_theme: 'dracula',
    default_domain: domain,
    discover_connection_methods: false,
    i18n: chinese ? (traditional ? 'zh_TW' : 'zh_CN') : 'en',
    keepalive: true,
    locked_domain: domain,
    message_archiving: 'always',
    persistent_store: 'IndexedDB',
    play_sounds: false,
    registration_domain: domain,
    show_client_info: false,
    theme: 'classic',
    view_mode: 'fullscreen',
    websocket_url: `wss://${location.host}/xmpp-websocket`,
  });
}

start().catch((error) => {
  console.error(error);
  const notice = document.getElementById('notice');
  notice.textContent = text.failed;
  notice.hidden = false;
});
