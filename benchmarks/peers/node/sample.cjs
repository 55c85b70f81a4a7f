// The platform's Node SDK as its event page uses it, with its usual log level: the handler prints the event and keeps nothing.
const Lark = require('@larksuiteoapi/node-sdk');

const [domain, appId, appSecret] = process.argv.slice(2);
const wsClient = new Lark.WSClient({ appId, appSecret, domain });
wsClient.start({
    eventDispatcher: new Lark.EventDispatcher({}).register({
        'vc.reserve_config.updated_v1': async (data) => {
            console.log(data);
        },
    }),
});
